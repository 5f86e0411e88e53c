"""`RevisionFeed`: hands the revision log to watchers, first from the database, then live.

A watcher's queue is bounded: one that reads too slowly loses the queue, never a change, because
it goes back to the log where it stopped. Knows neither gRPC nor SQL: it is given a function that
reads the log.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence

from services.card_store import records
from shared import errors

HEARTBEAT_S = 2.0
QUEUE_CHANGES = 256
"""Changes kept in memory for one watcher."""
FOLLOWED_EVERY_S = 0.25
"""How often the log of a shared database is looked at."""
PAGE_CHANGES = 256
"""Lines of the log read at once."""

ReadLog = Callable[[int, int], Sequence[records.Change]]
"""The lines after a revision, at most so many; blocks."""


class RevisionFeed:
    """All watchers of one store; lives on one event loop."""

    def __init__(
        self,
        read_log: ReadLog,
        heartbeat_s: float = HEARTBEAT_S,
        queue_changes: int = QUEUE_CHANGES,
    ) -> None:
        """Takes the way to the log.

        Args:
            read_log: reads the log; called in a thread.
            heartbeat_s: a watcher that got nothing for so long gets a heartbeat.
            queue_changes: changes kept in memory for one watcher.
        """
        self._read_log = read_log
        self._heartbeat_s = heartbeat_s
        self._queue_changes = queue_changes
        self._watchers: set[_Watcher] = set()
        self._closed = False
        self._told = 0

    @property
    def watchers(self) -> int:
        """How many are watching."""
        return len(self._watchers)

    def publish(self, change: records.Change) -> None:
        """Tells every watcher; the change must be in the log already."""
        self._told = max(self._told, change.revision)
        for watcher in self._watchers:
            watcher.push(change)

    async def follow(self, read_head: Callable[[], int], every_s: float = FOLLOWED_EVERY_S) -> None:
        """Looks for what another store writes into the same log, for ever.

        Args:
            read_head: the newest revision; called in a thread.
            every_s: how often.
        """
        while True:
            head = 0
            # While the database is away nothing is missed: it is in the log.
            with contextlib.suppress(errors.UnavailableError):
                head = await asyncio.to_thread(read_head)
            if head > self._told:
                self._told = head
                for watcher in self._watchers:
                    watcher.look()
            await asyncio.sleep(every_s)

    def close(self) -> None:
        """Ends every watch, so that the server can stop without waiting for them."""
        self._closed = True
        for watcher in self._watchers:
            watcher.wake()

    async def watch(self, from_revision: int) -> AsyncGenerator[records.Change, None]:
        """Every change after a revision, in order and without gap, and heartbeats between.

        The first heartbeat says that everything that was in the log has been sent.

        Args:
            from_revision: the last revision that the watcher has seen; 0 for everything.

        Raises:
            errors.UnavailableError: the store stops; watch again.
        """
        # Before the log is read: what is committed from now on is either read or pushed.
        watcher = _Watcher(self._queue_changes)
        self._watchers.add(watcher)
        seen, greeted = from_revision, False
        try:
            while True:
                if watcher.behind:
                    watcher.catch_up()
                    unread = True
                    while unread and not self._closed:
                        page = await asyncio.to_thread(self._read_log, seen, PAGE_CHANGES)
                        for change in page:
                            seen = change.revision
                            yield change
                        unread = len(page) == PAGE_CHANGES
                    if not greeted:
                        greeted = True
                        yield _heartbeat(seen)
                if self._closed:
                    raise errors.UnavailableError("the card store stops; watch again")
                if not await watcher.wait(self._heartbeat_s):
                    yield _heartbeat(seen)
                    continue
                while (news := watcher.pop()) is not None:
                    if news.revision > seen + 1:
                        # The log knows what lies between: another store on the same database may
                        # have written it.
                        watcher.behind = True
                    elif news.revision == seen + 1:
                        seen = news.revision
                        yield news
        finally:
            self._watchers.discard(watcher)


class _Watcher:
    """What waits for one watcher to read it."""

    def __init__(self, queue_changes: int) -> None:
        self._queue: collections.deque[records.Change] = collections.deque()
        self._queue_changes = queue_changes
        self._wake = asyncio.Event()
        self.behind = True
        """Whether the log has changes that the queue lacks; so at the beginning."""

    def push(self, change: records.Change) -> None:
        if len(self._queue) < self._queue_changes:
            self._queue.append(change)
        else:
            self._queue.clear()
            self.behind = True
        self._wake.set()

    def pop(self) -> records.Change | None:
        # A change that came after the queue was lost waits in vain: the log is read first.
        if self.behind or not self._queue:
            return None
        return self._queue.popleft()

    def catch_up(self) -> None:
        """Begins anew, just before the log is read."""
        self.behind = False
        self._queue.clear()

    def look(self) -> None:
        """Has it read the log once more."""
        self.behind = True
        self._wake.set()

    def wake(self) -> None:
        self._wake.set()

    async def wait(self, timeout_s: float) -> bool:
        """Whether something happened before the time was over."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        except TimeoutError:
            return False
        self._wake.clear()
        return True


def _heartbeat(seen: int) -> records.Change:
    return records.Change(records.ChangeKind.HEARTBEAT, seen)
