"""`SkillFactory`: which gaps become tasks, and everything that can be asked about tasks.

Decides; the workflow does. Knows nothing about protobuf and nothing about DBOS.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import structlog

from services.factory import (
    board,
    budget,
    dissonance,
    expenses,
    feedback,
    feedback_book,
    judgement,
    meanings,
    nightly,
    partners,
    tasks,
)
from shared import errors, questions, repositories
from shared import settings as config
from shared.telemetry import tracing

_log = structlog.get_logger(__name__)
_DEFAULT_LIMIT, _LARGEST_LIMIT = 100, 1000
LONGEST_WAIT_S = 60.0
_AHEAD = 8
"""Tasks that are handed in, for each that runs: what waits here is ordered anew by demand."""
_STRANDED = (
    "its workflow ended without a result, or was begun by another version of the factory; see the "
    "factory's log, then retry"
)


class Queue(Protocol):
    """Runs the workflow of a task, once, when its turn has come."""

    async def enqueue(self, task_id: str, priority: int, delay_s: float = 0.0) -> None:
        """Hands a task in; again is harmless."""

    async def cancel(self, task_id: str) -> None:
        """Takes it out or stops it."""

    async def ended(self, task_ids: Sequence[str]) -> set[str]:
        """Those whose workflow is over."""


class SkillFactory:
    """The durable task queue."""

    def __init__(
        self,
        kept: board.TaskBoard,
        queue: Queue,
        distiller: partners.Distiller,
        gather_s: float,
        limits: config.Factory | None = None,
        embed: meanings.Embed | None = None,
    ) -> None:
        """Takes what it works with.

        Args:
            kept: the tasks.
            queue: what runs them.
            distiller: tells what a question is about.
            gather_s: how long a new task waits for further questions about its gap.
            limits: what is worth a task, how many may start, and how many at once; by default
                those of the settings.
            embed: makes sentence vectors; without it equal questions and places alone are joined,
                and small talk is not told.
        """
        self._limits = limits or config.Factory()
        self._meanings = (
            meanings.Meanings(embed, self._limits.judgement.same_gap) if embed else None
        )
        self._nights = nightly.Schedule(self._limits.nightly)
        self._admitting = asyncio.Lock()
        self._board = kept
        self._queue = queue
        self._distiller = distiller
        self._gather_s = gather_s

    async def report_dissonance(
        self, event: dissonance.CognitiveDissonance
    ) -> tuple[tasks.TrainingTask, bool]:
        """Opens a task for a gap, unless an open one covers it.

        Returns:
            The task, and whether it is new.

        Raises:
            errors.PreconditionError: nothing is learned from it; says why.
        """
        known = await self._board.outcome(event.event_id)
        if isinstance(known, str):
            raise errors.PreconditionError(known)
        if known is not None:
            return known, False
        vector_D = await self._meanings.of(event.query) if self._meanings else None
        await self._check_worth(event, vector_D)
        topic_key = await self._topic_key(event.query)
        fresh = self._fresh(event.query)
        detected_s = max(0, fresh.created_at_ms - event.detected_at_ms) / 1000
        fresh = dataclasses.replace(
            fresh,
            topic_key=topic_key,
            domain=event.domain,
            tenant=event.tenant,
            traceparent=event.traceparent or fresh.traceparent,
            stage_times=(tasks.StageTime("detect", detected_s),),
        )
        alike = ""
        if self._meanings is not None and vector_D is not None:
            alike = self._meanings.alike(event.query, vector_D)
        task, created = await self._board.record(event, fresh, alike)
        if self._meanings is not None and vector_D is not None:
            self._meanings.remember(task.id, event.query, vector_D)
        if created:
            _log.info("gap found", task=task.id, topic_key=topic_key)
            await self.admit()
        return task, created

    async def _check_worth(
        self, event: dissonance.CognitiveDissonance, vector_D: meanings.Vectors | None
    ) -> None:
        small_talk = 0.0
        if self._meanings is not None and vector_D is not None:
            small_talk = self._meanings.small_talk(vector_D)
        reason = judgement.reason_against(event, small_talk, self._limits.judgement)
        if reason:
            _log.info("nothing learned", event_id=event.event_id, reason=reason)
            await self._board.dismiss(event, reason)
            raise errors.PreconditionError(reason)

    async def learn_from(self, given: feedback.Feedback) -> feedback_book.Outcome:
        """Opens a task for an answer that a user called wrong, unless an open one learns that.

        A correction is learned whatever the base model thinks of it. Without one the question is
        worth as much as one that the base model did not know.

        Args:
            given: scrubbed already.

        Raises:
            errors.AlreadyExistsError: the caller said something else under the same key.
            errors.OverloadedError: the tenant said enough within the last hour.
        """
        query, reason, alike = given.question, "", ""
        vector_D = await self._meanings.of(query) if self._meanings else None
        if self._meanings is not None and vector_D is not None:
            alike = self._meanings.alike(query, vector_D)
            if not given.correction:
                small_talk = self._meanings.small_talk(vector_D)
                reason = judgement.against_small_talk(small_talk, self._limits.judgement)
        fresh = None
        if not reason:
            # What corrects a card belongs to the card, wherever documents speak of it.
            place = "" if given.card and given.correction else await self._topic_key(query)
            fresh = dataclasses.replace(
                self._fresh(query),
                topic_key=place,
                tenant=given.tenant,
                corrections=given.corrections,
            )
        most_an_hour = self._limits.budget.tenant_feedback_per_hour
        outcome = await self._board.record_feedback(given, fresh, reason, alike, most_an_hour)
        task = outcome.task
        if task is not None and self._meanings is not None and vector_D is not None:
            self._meanings.remember(task.id, query, vector_D)
        if outcome.created:
            await self.admit()
        return outcome

    async def teach(
        self,
        topic: str,
        document: str,
        priority: int,
        idempotency_key: str,
        tenant: str = "",
        repository: str = "",
    ) -> tasks.TrainingTask:
        """Opens a task for something that a person wants learned.

        Args:
            topic: what, in words; or
            document: the name of a document in the distiller's knowledge folder; or
            repository: the name of a code base among the distiller's repositories, below.
            priority: 1 (low) to 5 (critical); 0 for the default.
            idempotency_key: the same key again returns the first task.
            tenant: whose budget pays.
        """
        if sum(bool(one.strip()) for one in (topic, document, repository)) != 1:
            raise errors.InvalidInputError("name one to learn: a topic, a document or a repository")
        if repository:
            repositories.check_name(repository)
        fresh = dataclasses.replace(
            self._fresh(topic or document or repository),
            topic=topic,
            document=document,
            repository=repository,
            priority=priority or tasks.DEFAULT_PRIORITY,
            tenant=tenant,
        )
        return await self._open(fresh, idempotency_key)

    async def retry(self, task_id: str, idempotency_key: str) -> tasks.TrainingTask:
        """Opens a task for the gap of one that FAILED or was CANCELLED.

        Raises:
            errors.PreconditionError: the task neither failed nor was cancelled.
        """
        before = await self._board.get(task_id)
        again = before.retried(_new_id(), self._board.now_ms())
        # Somebody's wish of now: a trace of its own.
        again = dataclasses.replace(again, traceparent=tracing.traceparent())
        return await self._open(again, idempotency_key)

    async def cancel(self, task_id: str) -> tasks.TrainingTask:
        """Ends a task before its card is published.

        Raises:
            errors.PreconditionError: it has ended, or its card is being published.
        """
        now_ms = self._board.now_ms()
        task = await self._board.change(task_id, lambda task: task.cancelled(now_ms))
        if not task.admitted_at_ms:
            return task
        await self._queue.cancel(task_id)
        # In this order: a workflow at work would begin the distillation again.
        try:
            await self._distiller.cancel((task_id, partners.enlarging_id(task_id)))
        except errors.SkillmeshError as error:
            _log.warning("teachers may still be asked", task=task_id, reason=str(error))
        await expenses.note(self._board, self._distiller, task_id)
        return await self._board.get(task_id)

    async def get(self, task_id: str) -> tasks.TrainingTask:
        """One task."""
        return await self._board.get(task_id)

    async def list(
        self,
        statuses: Sequence[tasks.TaskStatus],
        limit: int,
        tenants: frozenset[str] | None = None,
    ) -> Sequence[tasks.TrainingTask]:
        """Tasks, the newest first.

        Args:
            statuses: only in these; empty for all.
            limit: this many at most; 0 for the default.
            tenants: whose, besides those of nobody; None for all.
        """
        if limit < 0:
            raise errors.InvalidInputError(f"limit {limit} is negative")
        return await self._board.all(
            statuses, min(limit or _DEFAULT_LIMIT, _LARGEST_LIMIT), tenants
        )

    def watch(self, task_id: str) -> AsyncIterator[tasks.TrainingTask]:
        """The task now and at every change, until it has ended."""
        return self._board.watch(task_id)

    async def find(self, event_id: str, wait_s: float) -> tasks.TrainingTask:
        """The task that an event led to.

        Args:
            event_id: which event.
            wait_s: how long to wait for it to arrive, 60 s at most.
        """
        return await self._board.of_event(event_id, min(max(0.0, wait_s), LONGEST_WAIT_S))

    async def recover(self) -> None:
        """Makes queue and ledger agree after a start; call it once the queue runs."""
        waiting = sorted(await self._board.open(), key=lambda task: task.place)
        over = await self._queue.ended([task.id for task in waiting])
        now_ms = self._board.now_ms()
        for task in waiting:
            if task.id in over:
                await self._board.change(task.id, lambda task: task.failed(_STRANDED, now_ms))
            elif task.admitted_at_ms:
                # A factory killed between ledger and queue has not handed it in.
                await self._queue.enqueue(task.id, _urgency(task))
        if self._meanings is not None:
            await self._meanings.keep_only(waiting)
        await self.admit()

    async def admit_for_ever(self, every_s: float = 5.0) -> None:
        """Lets tasks start whenever another has ended or the budget may have room again."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await self._board.ended.wait()
            self._board.ended.clear()
            try:
                await self.admit()
                if self._meanings is not None:
                    await self._meanings.keep_only(await self._board.open())
            except Exception:
                # A database that is away for a moment must not end it.
                _log.exception("waiting tasks not looked at")

    async def admit(self) -> None:
        """Lets tasks start, as far as night and budget allow."""

        def decide(waiting: Sequence[tasks.TrainingTask], spent: budget.Spending) -> list[str]:
            most = self._limits.concurrency * _AHEAD
            return budget.reasons_to_wait(waiting, spent, self._limits.budget, most)

        sleep = self._nights.sleep(self._board.now_ms())
        # In their order: what was admitted first is handed in first.
        async with self._admitting:
            for task in await self._board.admit(decide, sleep):
                await self._queue.enqueue(task.id, _urgency(task), self._gather_left_s(task))

    def _gather_left_s(self, task: tasks.TrainingTask) -> float:
        """What is taught, tried again or has waited already need not wait for more questions."""
        asked = not (task.taught or task.retry_of or task.night)
        waited_s = (task.admitted_at_ms - task.created_at_ms) / 1000
        return self._gather_s if asked and waited_s <= self._gather_s else 0.0

    async def _open(self, fresh: tasks.TrainingTask, idempotency_key: str) -> tasks.TrainingTask:
        task, created = await self._board.add(fresh, idempotency_key)
        if created:
            await self.admit()
            return await self._board.get(task.id)
        return task

    async def _topic_key(self, query: str) -> str:
        if await self._board.covers(f"question:{questions.fold(query)}"):
            return ""
        try:
            return await self._distiller.locate(query)
        except errors.SkillmeshError as error:
            # The event counts more than its place: without one only the same question is joined.
            _log.info("question not located", reason=str(error))
            return ""

    def _fresh(self, trigger_query: str) -> tasks.TrainingTask:
        now_ms = self._board.now_ms()
        return tasks.TrainingTask(
            id=_new_id(),
            trigger_query=trigger_query,
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
            traceparent=tracing.traceparent(),
        )


def _urgency(task: tasks.TrainingTask) -> int:
    """Nightly batches keep their own order, behind whatever else there is."""
    return tasks.LOWEST_PRIORITY if task.night else task.priority


def _new_id() -> str:
    return uuid.uuid4().hex[:16]
