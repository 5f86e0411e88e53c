"""Who holds which cards, of one store and of several that share a database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.card_store import records, residency
from services.card_store.catalogue import catalogue, schema


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


def report(node_id: str, revision: int = 1) -> records.NodeResidency:
    return records.NodeResidency(node_id, "f" * 64, revision, ("a" * 64, "b" * 64), 0)


@pytest.fixture
def shared(postgres_url: str) -> Iterator[catalogue.Catalogue]:
    opened = catalogue.Catalogue(schema.open_database(postgres_url))
    opened.migrate()
    yield opened
    with opened.transaction() as connection:
        connection.execute(schema.NODES.delete())
    opened.close()


async def test_store_tells_what_another_one_heard_when_they_share_a_database(
    shared: catalogue.Catalogue,
) -> None:
    one, two = (residency.Residency(lambda: 5000, Clock()) for _ in range(2))
    one.report(report("n1"))
    two.report(report("n2", revision=7))
    await one.exchange(shared.nodes)
    await two.exchange(shared.nodes)
    await one.exchange(shared.nodes)
    assert [node.node_id for node in one.nodes()] == ["n1", "n2"]
    assert one.nodes() == two.nodes()
    assert one.nodes()[1].revision == 7 and one.nodes()[1].digests == ("a" * 64, "b" * 64)


async def test_newer_report_stays_when_an_older_one_is_heard_of(
    shared: catalogue.Catalogue,
) -> None:
    clock = Clock()
    one, two = (residency.Residency(lambda: 5000, clock) for _ in range(2))
    one.report(report("n1", revision=1))
    await one.exchange(shared.nodes)
    # The node has gone over to the other store.
    clock.s += 5
    two.report(report("n1", revision=2))
    await two.exchange(shared.nodes)
    await one.exchange(shared.nodes)
    assert one.nodes()[0].revision == two.nodes()[0].revision == 2


async def test_silent_node_is_forgotten_when_only_another_store_heard_of_it(
    shared: catalogue.Catalogue,
) -> None:
    clock = Clock()
    one, two = (residency.Residency(lambda: 5000, clock) for _ in range(2))
    one.report(report("n1"))
    await one.exchange(shared.nodes)
    await two.exchange(shared.nodes)
    assert len(two.nodes()) == 1
    clock.s += residency.FORGOTTEN_AFTER_S + 1
    assert two.nodes() == []
    with shared.transaction() as connection:
        old = schema.NODES.c.reported_at_ms - 31_000
        connection.execute(schema.NODES.update().values(reported_at_ms=old))
    assert shared.nodes.read(residency.FORGOTTEN_AFTER_S) == []
