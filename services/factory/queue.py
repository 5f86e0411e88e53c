"""`SkillFactory`: which gaps become tasks, and everything that can be asked about tasks.

Decides; the workflow does. Knows nothing about protobuf and nothing about DBOS.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import structlog

from services.factory import board, partners, tasks
from shared import errors, questions

_log = structlog.get_logger(__name__)
_DEFAULT_LIMIT, _LARGEST_LIMIT = 100, 1000
LONGEST_WAIT_S = 60.0
_STRANDED = "its workflow ended without a result; see the factory's log, then retry"


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
    ) -> None:
        """Takes what it works with.

        Args:
            kept: the tasks.
            queue: what runs them.
            distiller: tells what a question is about.
            gather_s: how long a new task waits for further questions about its gap.
        """
        self._board = kept
        self._queue = queue
        self._distiller = distiller
        self._gather_s = gather_s

    async def report_dissonance(
        self, event: tasks.CognitiveDissonance
    ) -> tuple[tasks.TrainingTask, bool]:
        """Opens a task for a gap, unless an open one covers it.

        Returns:
            The task, and whether it is new.
        """
        topic_key = await self._topic_key(event.query)
        fresh = dataclasses.replace(self._fresh(event.query), topic_key=topic_key)
        detected_s = max(0, fresh.created_at_ms - event.detected_at_ms) / 1000
        fresh = dataclasses.replace(fresh, stage_times=(tasks.StageTime("detect", detected_s),))
        task, created = await self._board.record(event, fresh)
        if created:
            _log.info("gap found", task=task.id, query=event.query, topic_key=topic_key)
            await self._queue.enqueue(task.id, task.priority, self._gather_s)
        return task, created

    async def teach(
        self, topic: str, document: str, priority: int, idempotency_key: str
    ) -> tasks.TrainingTask:
        """Opens a task for something that a person wants learned.

        Args:
            topic: what, in words; or
            document: the name of a document in the distiller's knowledge folder.
            priority: 1 (low) to 5 (critical); 0 for the default.
            idempotency_key: the same key again returns the first task.
        """
        if bool(topic.strip()) == bool(document.strip()):
            raise errors.InvalidInputError("name a topic or a document to learn, and not both")
        fresh = dataclasses.replace(
            self._fresh(topic or document),
            topic=topic,
            document=document,
            priority=priority or tasks.DEFAULT_PRIORITY,
        )
        return await self._open(fresh, idempotency_key)

    async def retry(self, task_id: str, idempotency_key: str) -> tasks.TrainingTask:
        """Opens a task for the gap of one that FAILED or was CANCELLED.

        Raises:
            errors.PreconditionError: the task neither failed nor was cancelled.
        """
        before = await self._board.get(task_id)
        return await self._open(before.retried(_new_id(), self._board.now_ms()), idempotency_key)

    async def cancel(self, task_id: str) -> tasks.TrainingTask:
        """Ends a task before its card is published.

        Raises:
            errors.PreconditionError: it has ended, or its card is being published.
        """
        now_ms = self._board.now_ms()
        task = await self._board.change(task_id, lambda task: task.cancelled(now_ms))
        await self._queue.cancel(task_id)
        return task

    async def get(self, task_id: str) -> tasks.TrainingTask:
        """One task."""
        return await self._board.get(task_id)

    async def list(
        self, statuses: Sequence[tasks.TaskStatus], limit: int
    ) -> Sequence[tasks.TrainingTask]:
        """Tasks, the newest first.

        Args:
            statuses: only in these; empty for all.
            limit: this many at most; 0 for the default.
        """
        if limit < 0:
            raise errors.InvalidInputError(f"limit {limit} is negative")
        return await self._board.all(statuses, min(limit or _DEFAULT_LIMIT, _LARGEST_LIMIT))

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
        waiting = await self._board.open()
        over = await self._queue.ended([task.id for task in waiting])
        now_ms = self._board.now_ms()
        for task in waiting:
            if task.id in over:
                await self._board.change(task.id, lambda task: task.failed(_STRANDED, now_ms))
            else:
                # A factory killed between ledger and queue has not handed it in.
                await self._queue.enqueue(task.id, task.priority)

    async def _open(self, fresh: tasks.TrainingTask, idempotency_key: str) -> tasks.TrainingTask:
        task, created = await self._board.add(fresh, idempotency_key)
        if created:
            await self._queue.enqueue(task.id, task.priority)
        return task

    async def _topic_key(self, query: str) -> str:
        if await self._board.covers(f"question:{questions.fold(query)}"):
            return ""
        try:
            return await self._distiller.locate(query)
        except errors.SkillmeshError as error:
            # The event counts more than its place: without one only the same question is joined.
            _log.info("question not located", query=query, reason=str(error))
            return ""

    def _fresh(self, trigger_query: str) -> tasks.TrainingTask:
        now_ms = self._board.now_ms()
        return tasks.TrainingTask(
            id=_new_id(), trigger_query=trigger_query, created_at_ms=now_ms, updated_at_ms=now_ms
        )


def _new_id() -> str:
    return uuid.uuid4().hex[:16]
