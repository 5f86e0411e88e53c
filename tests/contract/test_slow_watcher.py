"""A watcher that opens the log and never reads it, while thousands of lines come.

The control plane is a real process, whose memory is read from the kernel.
"""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Iterator

import pytest

from services.card_store import records
from services.card_store.catalogue import catalogue, schema
from shared.pb import cards_pb2, cards_pb2_grpc
from shared.rpc import client as rpc_client
from tests.contract.card_store_processes import Store, write_config

MIB = 1024 * 1024
DESCRIPTION = "d" * 40_000
"""Makes every line of the log as large as those of a card with many example questions."""
OLD_LINES, NEW_LINES = 2000, 500
DIGESTS = ["a" * 64, "b" * 64]


def fill(root: pathlib.Path) -> None:
    """Writes a long log as the control plane would have, in one transaction."""
    folder = root / "card_store"
    folder.mkdir(parents=True)
    cards = catalogue.Catalogue(schema.open_database(f"sqlite:///{folder / 'catalogue.db'}"))
    cards.migrate()
    for number, digest in enumerate(DIGESTS):
        cards.add_card(
            records.CardRecord(
                name="watched",
                digest=digest,
                version=f"1.{number}.0",
                domain="testing",
                description=DESCRIPTION,
                base_fingerprint="f" * 64,
                size_bytes=1,
                created_at_ms=number,
                manifest_json="{}",
            )
        )
    line = {"kind": "ALIAS_MOVED", "digest": DIGESTS[0], "alias": "production"}
    with cards.transaction() as connection:
        connection.execute(schema.REVISIONS.insert(), [line] * (OLD_LINES - len(DIGESTS)))
    cards.close()


@pytest.fixture
def store(tmp_path: pathlib.Path) -> Iterator[Store]:
    write_config(tmp_path)
    fill(tmp_path)
    opened = Store(tmp_path)
    yield opened
    opened.stop()


async def publish(stub: cards_pb2_grpc.CardStoreAsyncStub, lines: int) -> None:
    for number in range(lines):
        request = cards_pb2.SetAliasRequest(
            name="watched", alias="latest", digest=DIGESTS[number % 2]
        )
        await rpc_client.call(stub.SetAlias, request)


async def revisions(watch: object, last: int) -> list[int]:
    """Of the lines up to the last, as they come."""
    found = []
    async with asyncio.timeout(300):
        while not found or found[-1] < last:
            change = await watch.read()  # type: ignore[attr-defined]
            if change.kind != cards_pb2.HEARTBEAT:
                found.append(change.revision)
    return found


async def test_memory_is_bounded_and_nothing_is_lost_when_a_watcher_never_reads(
    store: Store,
) -> None:
    last = OLD_LINES + NEW_LINES
    everything = list(range(1, last + 1))
    async with store.stub() as stub, store.stub() as other, store.stub() as third:
        await rpc_client.call(stub.GetStoreStatus, cards_pb2.GetStoreStatusRequest())
        before = store.control.memory_bytes("VmRSS")
        silent = [one.Watch(cards_pb2.WatchRequest()) for one in (stub, other)]
        await publish(third, NEW_LINES)
        grown = store.control.memory_bytes("VmRSS") - before
        # Two watchers have 100 MB each before them.
        assert grown < 50 * MIB, f"{grown / MIB:.0f} MiB more than before"

        # Others are served meanwhile, a watcher who reads among them.
        assert len(await store.listed()) == len(DIGESTS)
        reading = third.Watch(cards_pb2.WatchRequest(from_revision=OLD_LINES))
        assert await revisions(reading, last) == everything[OLD_LINES:]
        reading.cancel()

        # Who reads after all finds everything, in order.
        assert await revisions(silent[0], last) == everything
        silent[0].cancel()
        # The other one never does, and does not hold up the end.
        assert await asyncio.to_thread(store.control.end) == 0
        silent[1].cancel()
