from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.card_store import records, revisions
from shared import errors

NEVER_S = 3600.0


class FakeLog:
    """A revision log in memory that counts how often it is read."""

    def __init__(self, changes: int = 0) -> None:
        self.changes = [published(number) for number in range(1, changes + 1)]
        self.reads = 0

    def append(self) -> records.Change:
        self.changes.append(published(len(self.changes) + 1))
        return self.changes[-1]

    def read(self, revision: int, limit: int) -> list[records.Change]:
        self.reads += 1
        return [change for change in self.changes if change.revision > revision][:limit]


def published(revision: int) -> records.Change:
    return records.Change(records.ChangeKind.CARD_PUBLISHED, revision)


async def take(changes: AsyncIterator[records.Change], count: int) -> list[int]:
    """Revisions of the next changes; a heartbeat counts as its negative."""
    taken = []
    async with asyncio.timeout(30):
        while len(taken) < count:
            change = await anext(changes)
            beat = change.kind is records.ChangeKind.HEARTBEAT
            taken.append(-change.revision if beat else change.revision)
    return taken


async def test_log_is_replayed_then_live_when_a_watcher_comes_back() -> None:
    log = FakeLog(5)
    feed = revisions.RevisionFeed(log.read, NEVER_S)
    watch = feed.watch(3)
    assert await take(watch, 3) == [4, 5, -5]
    for _ in range(2):
        feed.publish(log.append())
    assert await take(watch, 2) == [6, 7]
    assert log.reads == 1
    await watch.aclose()
    assert feed.watchers == 0


async def test_every_page_is_read_when_the_log_is_long() -> None:
    log = FakeLog(2 * revisions.PAGE_CHANGES)
    watch = revisions.RevisionFeed(log.read, NEVER_S).watch(0)
    expected = list(range(1, 2 * revisions.PAGE_CHANGES + 1))
    assert await take(watch, len(expected) + 1) == [*expected, -expected[-1]]
    await watch.aclose()


async def test_heartbeats_come_when_nothing_happens() -> None:
    watch = revisions.RevisionFeed(FakeLog(1).read, heartbeat_s=0.001).watch(0)
    assert await take(watch, 4) == [1, -1, -1, -1]
    await watch.aclose()


async def test_nothing_is_lost_and_memory_is_bounded_when_a_watcher_is_slow() -> None:
    log = FakeLog()
    feed = revisions.RevisionFeed(log.read, NEVER_S, queue_changes=4)
    watch = feed.watch(0)
    assert await take(watch, 1) == [0]
    for _ in range(100):
        feed.publish(log.append())
    assert await take(watch, 100) == list(range(1, 101))
    assert log.reads == 2
    feed.publish(log.append())
    assert await take(watch, 1) == [101]
    assert log.reads == 2
    await watch.aclose()


async def test_change_comes_once_when_it_is_pushed_while_the_log_is_read() -> None:
    log = FakeLog(2)
    feed = revisions.RevisionFeed(log.read, NEVER_S)
    watch = feed.watch(0)
    assert await take(watch, 1) == [1]
    # The watcher stands in the middle of its first page, which has this change already.
    feed.publish(log.changes[1])
    assert await take(watch, 2) == [2, -2]
    feed.publish(log.append())
    assert await take(watch, 1) == [3]
    await watch.aclose()


async def test_log_fills_the_gap_when_another_store_wrote_to_it() -> None:
    log = FakeLog()
    feed = revisions.RevisionFeed(log.read, NEVER_S)
    watch = feed.watch(0)
    assert await take(watch, 1) == [0]
    log.append()
    feed.publish(log.append())
    assert await take(watch, 2) == [1, 2]
    await watch.aclose()


async def test_change_comes_when_another_store_wrote_it_and_nothing_happens_here() -> None:
    log = FakeLog(1)
    feed = revisions.RevisionFeed(log.read, NEVER_S)
    watch = feed.watch(0)
    assert await take(watch, 2) == [1, -1]
    away = [True]

    def head() -> int:
        if away.pop() if away else False:
            raise errors.UnavailableError("the database is away")
        return len(log.changes)

    following = asyncio.ensure_future(feed.follow(head, every_s=0.001))
    log.append()
    log.append()
    assert await take(watch, 2) == [2, 3]
    reads = log.reads
    feed.publish(log.append())
    assert await take(watch, 1) == [4]
    await asyncio.sleep(0.02)
    # What this store told itself is not read again.
    assert log.reads == reads
    following.cancel()
    await watch.aclose()


async def test_watch_ends_typed_when_the_store_stops() -> None:
    feed = revisions.RevisionFeed(FakeLog().read, NEVER_S)
    watch = feed.watch(0)
    assert await take(watch, 1) == [0]
    waiting = asyncio.ensure_future(anext(watch))
    feed.close()
    with pytest.raises(errors.UnavailableError, match="stops"):
        await waiting
    assert feed.watchers == 0
