"""A clock that is set back and forth under the card store."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Iterator

import pytest

from services.card_store import blobs, records, residency
from tests.unit.card_store import house as houses

YEAR_MS = 365 * 24 * 3600 * 1000
NOW_MS = 1_700_000_000_000


class Clock:
    """Unix time that goes where it is set."""

    def __init__(self) -> None:
        self.ms = NOW_MS

    def now_ms(self) -> int:
        return self.ms


class House(houses.House):
    """A store under a clock of the test."""

    def __init__(self, root: pathlib.Path) -> None:
        self.clock = Clock()
        super().__init__(root, clock_ms=self.clock.now_ms)

    async def publish(self, version: str, at_ms: int) -> str:
        digest = self.stage_card(version=version)
        self.clock.ms = at_ms
        await self.store.commit("card", digest)
        return digest

    async def pages(self, size: int) -> list[str]:
        """Every version as page after page tells it."""
        found: list[str] = []
        token = ""
        while True:
            query = records.Query(all_versions=True, page_size=size, page_token=token)
            page = await self.store.list_cards(query)
            found += [card.version for card in page.cards]
            token = page.next_page_token
            if not token:
                return found


@pytest.fixture
def house(tmp_path: pathlib.Path) -> Iterator[House]:
    opened = House(tmp_path)
    yield opened
    opened.close()


JUMPS_MS = [NOW_MS, NOW_MS - YEAR_MS, NOW_MS + YEAR_MS, 0, NOW_MS, NOW_MS - 1, 2**40, NOW_MS]


async def test_pages_have_every_card_once_when_the_clock_jumps(house: House) -> None:
    versions = [f"1.{number}.0" for number in range(len(JUMPS_MS))]
    for version, at_ms in zip(versions, JUMPS_MS, strict=True):
        await house.publish(version, at_ms)
    whole = [card.version for card in house.cards.list_cards(records.Query(True)).cards]
    assert sorted(whole) == versions
    for size in range(1, len(versions) + 1):
        assert await house.pages(size) == whole

    # What comes between two pages is told or not, but nothing else is skipped or repeated.
    for number, at_ms in enumerate((0, NOW_MS - YEAR_MS, NOW_MS + 2 * YEAR_MS)):
        first = await house.store.list_cards(records.Query(True, page_size=3))
        await house.publish(f"2.{number}.0", at_ms)
        query = records.Query(True, page_size=1000, page_token=first.next_page_token)
        rest = await house.store.list_cards(query)
        told = [card.version for card in (*first.cards, *rest.cards)]
        assert len(told) == len(set(told))
        assert [version for version in told if version in versions] == whole


async def test_last_commit_is_the_latest_when_the_clock_was_set_back(house: House) -> None:
    digests = [
        await house.publish("1.0.0", NOW_MS),
        await house.publish("1.1.0", NOW_MS + YEAR_MS),
        await house.publish("1.2.0", 0),
    ]
    assert (await house.store.get("tiny")).digest == digests[2]
    assert (await house.store.roll_back("tiny", "latest", "")).digest == digests[1]
    assert (await house.store.roll_back("tiny", "latest", "")).digest == digests[0]
    moves = await house.store.alias_moves("tiny", "latest")
    assert [move.digest for move in moves[2:]] == [digests[2], digests[1], digests[0]]
    revisions_told = [change.revision for change in house.cards.changes_after(0, 100)]
    assert revisions_told == sorted(revisions_told) == list(range(1, 6))


@pytest.mark.parametrize("jump_ms", [-YEAR_MS, -1, YEAR_MS, 1 - NOW_MS])
def test_nodes_are_forgotten_by_their_silence_alone_when_the_clock_jumps(jump_ms: int) -> None:
    clock, elapsed_s = Clock(), [0.0]
    nodes = residency.Residency(clock.now_ms, lambda: elapsed_s[0])
    held = records.NodeResidency("node", "f" * 64, 1, ("a" * 64,), 0)
    nodes.report(held)

    clock.ms += jump_ms
    assert [node.node_id for node in nodes.nodes()] == ["node"]
    nodes.report(held)
    assert [node.reported_at_ms for node in nodes.nodes()] == [clock.ms]
    elapsed_s[0] += residency.FORGOTTEN_AFTER_S + 1
    assert nodes.nodes() == []
    # Whoever reports again is known again.
    nodes.report(held)
    assert len(nodes.nodes()) == 1


@pytest.mark.parametrize("clock_s", [-1e9, 0.0, 1e9, 1e11])
def test_live_upload_goes_on_when_a_wrong_clock_cleans(
    tmp_path: pathlib.Path, clock_s: float
) -> None:
    data = b"weights" * 1000
    digest = hashlib.sha256(data).hexdigest()
    files = blobs.BlobStore(tmp_path)

    def sender() -> Iterator[bytes]:
        yield data[:100]
        assert blobs.BlobStore(tmp_path).clean(clock_s) == 0
        yield data[100:]

    files.stage(digest, len(data), sender())
    assert files.promote(digest).read_bytes() == data
    assert files.clean(clock_s) == 0
    assert files.committed(digest) is not None


def test_waiting_upload_stays_when_the_clock_was_set_back(tmp_path: pathlib.Path) -> None:
    """As after a start without a battery: every file seems to be of the future."""
    data = b"weights" * 1000
    digest = hashlib.sha256(data).hexdigest()
    files = blobs.BlobStore(tmp_path)
    files.stage(digest, len(data), [data])
    assert files.clean(now_s=0.0) == 0
    assert files.promote(digest).read_bytes() == data


async def test_same_upload_is_welcome_again_when_a_clock_far_ahead_dropped_it(
    house: House,
) -> None:
    digest = house.stage_card()
    assert house.files.clean(now_s=1e11) == 1
    assert house.stage_card() == digest
    assert (await house.store.commit("card", digest)).created
