"""The ledger for the event loop: calls it off the loop and tells watchers what changed.

All writes of this process pass through here one after the other, so that watchers see changes in
the order in which they were committed.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import TypeVar

import sqlalchemy as sa

from services.factory import (
    budget,
    clusters,
    dissonance,
    feedback,
    feedback_book,
    ledger,
    nights,
    published,
    tasks,
)
from shared import errors

T = TypeVar("T")
_FOLLOWED_EVERY_S = 0.5
"""How often a shared database is looked at for what other factories wrote."""


def unix_ms() -> int:
    """The time of day in milliseconds."""
    return time.time_ns() // 1_000_000


class TaskBoard:
    """Asynchronous access to the ledger."""

    def __init__(self, kept: ledger.Ledger, clock_ms: Callable[[], int] = unix_ms) -> None:
        """Takes the ledger, and the Unix time in milliseconds."""
        self._ledger = kept
        self._nights = nights.NightBook(kept.database)
        self._cards = published.CardBook(kept.database)
        self._feedback = feedback_book.FeedbackBook(kept.database)
        self.now_ms = clock_ms
        # One thread of our own: DBOS replaces the loop's default executor and takes it down.
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._order = asyncio.Lock()
        self._watchers: defaultdict[str, set[asyncio.Queue[tasks.TrainingTask]]] = defaultdict(set)
        self._awaited: defaultdict[str, set[asyncio.Future[str]]] = defaultdict(set)
        self._told: dict[str, tasks.TrainingTask] = {}
        """Of each watched task what its watchers heard last."""
        self.is_shared = kept.database.may_be_shared
        """Whether other factories may write to it, too."""
        self.ended = asyncio.Event()
        """Set whenever a task has ended; whoever waits for it clears it."""

    async def close(self) -> None:
        """Waits for what is being written, then closes the ledger."""
        await self._off_loop(self._ledger.close)
        self._thread.shutdown()

    async def record(
        self, event: dissonance.CognitiveDissonance, fresh: tasks.TrainingTask, alike: str = ""
    ) -> tuple[tasks.TrainingTask, bool]:
        """Counts an event; see `ledger.Ledger.record`."""
        async with self._order:
            task, created = await self._off_loop(lambda: self._ledger.record(event, fresh, alike))
            self._tell(task)
            self._arrived(event.event_id, task)
            return task, created

    async def dismiss(self, event: dissonance.CognitiveDissonance, reason: str) -> None:
        """Counts an event from which nothing is learned."""
        async with self._order:
            now_ms = self.now_ms()
            await self._off_loop(lambda: self._ledger.dismiss(event, reason, now_ms))
            self._arrived(event.event_id, reason)

    async def admit(
        self,
        decide: Callable[[Sequence[tasks.TrainingTask], budget.Spending], list[str]],
        sleep: nights.Sleep = nights.AWAKE,
    ) -> list[tasks.TrainingTask]:
        """Lets waiting tasks start; see `ledger.Ledger.admit`."""
        async with self._order:
            now_ms = self.now_ms()
            started, told = await self._off_loop(lambda: self._ledger.admit(now_ms, decide, sleep))
            for task in (*started, *told):
                self._tell(task)
            return started

    async def add(
        self, fresh: tasks.TrainingTask, idempotency_key: str
    ) -> tuple[tasks.TrainingTask, bool]:
        """Opens a task; see `ledger.Ledger.add`."""
        async with self._order:
            task, created = await self._off_loop(lambda: self._ledger.add(fresh, idempotency_key))
            self._tell(task)
            return task, created

    async def change(
        self,
        task_id: str,
        change: Callable[[tasks.TrainingTask], tasks.TrainingTask],
        answered: Collection[str] | None = None,
    ) -> tasks.TrainingTask:
        """Changes a task; see `ledger.Ledger.change`."""
        async with self._order:
            task, changed = await self._off_loop(
                lambda: self._ledger.change(task_id, change, answered)
            )
            for one in changed:
                self._tell(one)
            return task

    async def waiting_for_night(
        self, sleep: nights.Sleep, until_ms: int
    ) -> list[tasks.TrainingTask]:
        """Tasks that wait for a night; see `nights.NightBook.waiting`."""
        return await self._off_loop(lambda: self._nights.waiting(sleep, until_ms))

    async def night(self, night_id: str) -> nights.Night | None:
        """A nightly batch that was gathered."""
        return await self._off_loop(lambda: self._nights.find(night_id))

    async def night_count(self) -> int:
        """How many nightly batches were gathered."""
        return await self._off_loop(self._nights.count)

    async def gather(
        self, night_id: str, due_ms: int, plan: Sequence[clusters.Skill]
    ) -> nights.Night:
        """Takes tasks up into a nightly batch; see `nights.NightBook.gather`."""
        async with self._order:
            now_ms = self.now_ms()
            night, changed = await self._off_loop(
                lambda: self._nights.gather(night_id, due_ms, plan, now_ms)
            )
            for task in changed:
                self._tell(task)
            return night

    async def keep_card(self, card: published.PublishedCard) -> None:
        """Notes a card that was published; see `published.CardBook.keep`."""
        await self._off_loop(lambda: self._cards.keep(card))

    async def published_card(self, card: str) -> published.PublishedCard | None:
        """A card by its `name@digest`, if this factory published it."""
        return await self._off_loop(lambda: self._cards.find(card))

    async def cards_unchecked_since(
        self, at_ms: int, wrongs: int = 0, doubted_at_ms: int = 0
    ) -> list[published.PublishedCard]:
        """Published cards that are due; see `published.CardBook.unchecked_since`."""
        return await self._off_loop(
            lambda: self._cards.unchecked_since(at_ms, wrongs, doubted_at_ms)
        )

    async def card_checked(self, card: str) -> None:
        """Notes that a card was proved again now."""
        now_ms = self.now_ms()
        await self._off_loop(lambda: self._cards.checked(card, now_ms))

    async def record_feedback(
        self,
        given: feedback.Feedback,
        fresh: tasks.TrainingTask | None,
        reason: str = "",
        alike: str = "",
        most_an_hour: int = 0,
    ) -> feedback_book.Outcome:
        """Puts feedback on record; see `feedback_book.FeedbackBook.record`."""
        async with self._order:
            now_ms = self.now_ms()
            outcome = await self._off_loop(
                lambda: self._feedback.record(given, now_ms, fresh, reason, alike, most_an_hour)
            )
            if outcome.task is not None:
                self._tell(outcome.task)
            return outcome

    async def feedback_outcome(self, given: feedback.Feedback) -> feedback_book.Outcome | None:
        """What came of feedback that is on record; None where it is new."""
        return await self._off_loop(lambda: self._feedback.find(given))

    async def feedback_counts(self, card: str) -> feedback.Counts:
        """How often answers of a card were called right and wrong."""
        return await self._off_loop(lambda: self._feedback.counts(card))

    async def get(self, task_id: str) -> tasks.TrainingTask:
        """One task.

        Raises:
            errors.NotFoundError: no such task.
        """
        return await self._off_loop(lambda: self._ledger.get(task_id))

    async def all(
        self,
        statuses: Sequence[tasks.TaskStatus],
        limit: int,
        tenants: frozenset[str] | None = None,
    ) -> list[tasks.TrainingTask]:
        """Tasks, the newest first; see `ledger.Ledger.all`."""
        return await self._off_loop(lambda: self._ledger.all(statuses, limit, tenants))

    async def code_bases(self) -> list[tasks.TrainingTask]:
        """Of each code base that was learned the task that did so last."""
        return await self._off_loop(self._ledger.code_bases)

    async def open(self) -> list[tasks.TrainingTask]:
        """Every task that has not ended."""
        return await self._off_loop(self._ledger.open)

    async def covers(self, gap_key: str) -> bool:
        """Whether an open task covers that gap."""
        return await self._off_loop(lambda: self._ledger.covers(gap_key))

    async def watch(self, task_id: str) -> AsyncIterator[tasks.TrainingTask]:
        """The task now and at every change, until it has ended.

        Raises:
            errors.NotFoundError: no such task.
        """
        changes: asyncio.Queue[tasks.TrainingTask] = asyncio.Queue()
        # Reading and subscribing in one go: no change is missed and none comes twice.
        async with self._order:
            task = await self.get(task_id)
            self._watchers[task_id].add(changes)
            self._told[task_id] = task
        try:
            yield task
            while not task.status.final:
                task = await changes.get()
                yield task
        finally:
            self._watchers[task_id].discard(changes)
            if not self._watchers[task_id]:
                del self._watchers[task_id]
                self._told.pop(task_id, None)

    async def of_event(self, event_id: str, wait_s: float) -> tasks.TrainingTask:
        """The task that an event led to.

        Args:
            event_id: which event.
            wait_s: how long to wait for the event to arrive.

        Raises:
            errors.NotFoundError: it has not arrived.
            errors.PreconditionError: nothing is learned from it; says why.
        """
        arrival: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        async with self._order:
            found = await self._off_loop(lambda: self._ledger.of_event(event_id))
            if isinstance(found, str):
                raise errors.PreconditionError(found)
            if found is not None:
                return found
            self._awaited[event_id].add(arrival)
        try:
            return await self.get(await asyncio.wait_for(arrival, wait_s))
        except TimeoutError:
            raise errors.NotFoundError(
                f"the event {event_id!r} has not arrived; it may still be under way, or its "
                "question was asked with learning switched off"
            ) from None
        finally:
            waiting = self._awaited.get(event_id, set())
            waiting.discard(arrival)
            if not waiting:
                self._awaited.pop(event_id, None)

    async def follow_for_ever(self, every_s: float = _FOLLOWED_EVERY_S) -> None:
        """Tells watchers what other factories wrote."""
        while True:
            # While the database is away nothing is missed: it is told once it is back.
            with contextlib.suppress(sa.exc.DBAPIError, errors.SkillmeshError):
                await self.follow()
            await asyncio.sleep(every_s)

    async def follow(self) -> None:
        """Tells what other factories wrote since it was last looked at."""
        for task_id in list(self._watchers):
            async with self._order:
                task = await self.get(task_id)
                if task != self._told.get(task_id):
                    self._tell(task)
        for event_id in list(self._awaited):
            async with self._order:
                outcome = await self.outcome(event_id)
                if outcome is not None:
                    self._arrived(event_id, outcome)

    async def outcome(self, event_id: str) -> tasks.TrainingTask | str | None:
        """The task that an event led to, or why to none; None where it is not known."""
        return await self._off_loop(lambda: self._ledger.of_event(event_id))

    def _tell(self, task: tasks.TrainingTask) -> None:
        if task.status.final:
            self.ended.set()
        watchers = self._watchers.get(task.id)
        if watchers:
            self._told[task.id] = task
            for changes in watchers:
                changes.put_nowait(task)

    def _arrived(self, event_id: str, outcome: tasks.TrainingTask | str) -> None:
        """Tells who waits for an event to which task it led, or why to none."""
        for future in self._awaited.pop(event_id, set()):
            if future.done():
                continue
            if isinstance(outcome, str):
                future.set_exception(errors.PreconditionError(outcome))
            else:
                future.set_result(outcome.id)

    async def _off_loop(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
