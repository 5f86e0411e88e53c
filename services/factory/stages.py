"""One stage of a learning task each: begin it in the ledger, ask the service, note the time.

Every stage may run again from its beginning after a crash: the ledger moves to a state once, the
services know a task's work by its id. Knows nothing about DBOS and nothing about protobuf.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog

from services.factory import (
    board,
    confirming,
    expenses,
    following,
    partners,
    patience,
    published,
    tasks,
    versions,
)
from shared import errors

T = TypeVar("T")
_log = structlog.get_logger(__name__)

_PROGRESS_EVERY_S = 0.2
_LONGEST_GATHERINGS = 5


class Stages:
    """The stages of `workflow.SkillDistiller`."""

    def __init__(
        self,
        kept: board.TaskBoard,
        others: partners.Partners,
        step_timeout_s: float,
        confirm_s: float = confirming.CONFIRM_S,
        gather_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes what the stages work with.

        Args:
            kept: the tasks.
            others: the services asked.
            step_timeout_s: how long a stage waits for a service that is away.
            confirm_s: how long one question is asked until the new card answers it.
            gather_s: a task that questions keep joining waits until none came for so long, five
                times as long at most.
            clock: seconds, monotonic.
        """
        self._board = kept
        self._others = others
        self._step_timeout_s = step_timeout_s
        self._confirming = confirming.Confirming(kept, others, step_timeout_s, confirm_s, clock)
        self._gather_s = gather_s
        self._clock = clock

    async def traceparent(self, task_id: str) -> str:
        """The trace that a task belongs to; empty where it has none."""
        try:
            return (await self._board.get(task_id)).traceparent
        except Exception as error:
            # A trace is worth no task.
            _log.warning("trace not read", task=task_id, reason=str(error))
            return ""

    async def distil(self, task_id: str) -> partners.Distilled:
        """Has the distiller ask a teacher, and keeps the dataset.

        Raises:
            errors.TeacherError: no question was answered.
        """
        await self._gather(task_id)
        task = await self._begin(task_id, tasks.TaskStatus.DISTILLING, "distil")

        retried = await self._retried(task)
        follows = await self._patiently(
            lambda: following.followed(task, self._board, self._others.store)
        )

        async def attempt() -> partners.Distilled:
            return await self._others.distiller.distil(
                task_id,
                task.queries,
                task.topic,
                task.document,
                self._reporter(task_id),
                task.teacher,
                retried,
                task.repository,
                task.corrections,
                follows,
            )

        try:
            distilled = await self._patiently(attempt)
        except errors.SkillmeshError:
            await self._note_costs(task_id)
            raise
        await self._note_costs(task_id)
        if distilled.unanswered and not distilled.triggers:
            raise errors.TeacherError(
                f"{distilled.teacher or 'the teacher'} found no answer to "
                f"{_quoted(distilled.unanswered)}"
            )
        now_ms = self._board.now_ms()
        commit_id = distilled.code_base.commit_id if distilled.code_base else ""
        await self._board.change(
            task_id,
            lambda task: task.placed(distilled.domain, now_ms).read_at(commit_id, now_ms),
        )
        return distilled

    async def _retried(self, task: tasks.TrainingTask) -> tuple[str, ...]:
        """The tasks that one tries again, the latest first, as far as their answers may serve."""
        found = list[str]()
        while task.retry_of:
            task = await self._board.get(task.retry_of)
            proved = any(time.stage == "prove" for time in task.stage_times)
            if task.status is tasks.TaskStatus.FAILED and proved and not task.card:
                # The gate refused all that was trained on them: other answers may do better.
                break
            found.append(task.id)
        return tuple(found)

    async def _note_costs(self, task_id: str) -> None:
        await expenses.note(self._board, self._others.distiller, task_id)

    async def _gather(self, task_id: str) -> None:
        """Waits for the questions that are still coming: once it is distilled none can join."""
        while True:
            task = await self._board.get(task_id)
            joined = task.status is tasks.TaskStatus.PENDING and bool(task.other_queries)
            now_ms = self._board.now_ms()
            left_s = min(
                self._gather_s - (now_ms - task.updated_at_ms) / 1000,
                _LONGEST_GATHERINGS * self._gather_s - (now_ms - task.created_at_ms) / 1000,
            )
            if not joined or left_s <= 0:
                return
            await asyncio.sleep(left_s)

    async def keep_dataset(self, task_id: str, distilled: partners.Distilled) -> None:
        """Commits the dataset, so that the card store keeps what a card was made from."""
        await self._commit(f"{task_id}:dataset", distilled.dataset)
        await self._end(task_id, "distil")

    async def enlarge(
        self, task_id: str, distilled: partners.Distilled, weak: Sequence[str]
    ) -> partners.Distilled:
        """Has the distiller find more wordings of what a draft answered wrong.

        Returns:
            The larger dataset, committed; the same as before where there is nothing more.
        """
        now_ms = self._board.now_ms()
        await self._board.change(task_id, lambda task: task.timing("distil", now_ms))
        run_id = partners.enlarging_id(task_id)

        async def attempt() -> partners.Distilled:
            return await self._others.distiller.enlarge(
                run_id, task_id, weak, self._reporter(task_id)
            )

        try:
            larger = await self._patiently(attempt)
        except errors.SkillmeshError as error:
            # Another seed may pass with what there is.
            _log.warning("dataset not enlarged", task=task_id, reason=str(error))
        else:
            if larger.dataset != distilled.dataset:
                await self._commit(f"{run_id}:dataset", larger.dataset)
                # What was asked and found stays what it was.
                distilled = dataclasses.replace(
                    distilled, dataset=larger.dataset, questions=larger.questions
                )
        await self._note_costs(task_id)
        await self._end(task_id, "distil")
        return distilled

    async def choose_version(self, skill_name: str) -> partners.NextVersion:
        """The version of the card to be, and the one that it is to follow."""
        store = self._others.store
        numbers = await self._patiently(lambda: store.versions(skill_name))
        before = await self._patiently(lambda: store.latest(skill_name))
        serving = await self._patiently(lambda: store.serving(skill_name))
        return partners.NextVersion(versions.next_minor(numbers), before, serving)

    async def train(self, task_id: str, order: partners.TrainingOrder) -> partners.Trained:
        """Has a trainer make a draft."""
        await self._begin(task_id, tasks.TaskStatus.TRAINING, "train")

        async def attempt() -> partners.Trained:
            before = (await self._board.get(task_id)).trainer
            async with self._others.trainers.borrowed(before) as (address, trainer):
                # Written first: a factory that is killed meanwhile asks the same one again.
                await self._send(task_id, address)
                trained = await trainer.train(order, self._reporter(task_id))
            return dataclasses.replace(trained, trainer=address)

        trained = await self._patiently(attempt)
        await self._end(task_id, "train")
        return trained

    async def prove(
        self,
        task_id: str,
        run_id: str,
        distilled: partners.Distilled,
        trained: partners.Trained,
        before: partners.Published | None,
    ) -> partners.Proof | None:
        """Has the trainer that made a draft measure it, beside the version before.

        Returns:
            None where that trainer is gone, and the draft with it.
        """
        await self._begin(task_id, tasks.TaskStatus.EVALUATING, "prove")

        async def attempt() -> partners.Proof | None:
            async with self._others.trainers.borrowed(trained.trainer) as (address, trainer):
                if address != trained.trainer:
                    return None
                return await trainer.prove(
                    run_id,
                    distilled.dataset,
                    trained.draft,
                    distilled.triggers,
                    self._reporter(task_id),
                    before,
                )

        proof = await self._patiently(attempt)
        # Another try may go to any trainer.
        await self._send(task_id, "")
        await self._end(task_id, "prove")
        return proof

    async def publish(self, task_id: str, ticket: partners.Ticket, signature_json: str) -> str:
        """Commits the card with the trainer's signature.

        Returns:
            Its `name@digest`.
        """
        await self._begin(task_id, tasks.TaskStatus.PUBLISHING, "publish")
        card = await self._commit(f"{task_id}:card", ticket, signature_json)
        now_ms = self._board.now_ms()
        await self._board.change(task_id, lambda task: task.published(card, now_ms))
        await self._end(task_id, "publish")
        return card

    async def confirm(
        self, task_id: str, card: str, distilled: partners.Distilled, followed: str
    ) -> None:
        """Asks the published card until it answers right; see `confirming.Confirming`.

        Where it does not, the version before the card serves again.

        Args:
            task_id: of the task.
            card: what was published, `name@digest`.
            distilled: what it was trained on.
            followed: the version that served when the card's own was chosen; empty for none.

        Raises:
            errors.PreconditionError: the node does not answer with it, or not right, in time.
        """
        await self._begin(task_id, tasks.TaskStatus.PUBLISHING, "confirm")
        await self._confirming.confirm(task_id, card, distilled, followed, self._reporter(task_id))
        await self._end(task_id, "confirm")

    async def complete(self, task_id: str, card: str, distilled: partners.Distilled) -> None:
        """Ends the task well, and keeps what it takes to prove its card again."""
        kept = published.PublishedCard(
            card=card,
            task_id=task_id,
            dataset_digest=distilled.dataset.digest,
            triggers=distilled.triggers,
            checked_at_ms=self._board.now_ms(),
        )
        await self._board.keep_card(kept)
        detail = f"learned from {distilled.teacher}"
        if distilled.code_base:
            detail += f": {distilled.code_base.told}"
        if distilled.unanswered:
            detail += f"; no answer was found to {_quoted(distilled.unanswered)}"
        if distilled.rejected:
            told = ", ".join(f"{count} {reason}" for reason, count in distilled.rejected.items())
            detail += f"; pairs that were not trained: {told}"
        now_ms = self._board.now_ms()
        answered = [trigger.query for trigger in distilled.triggers]
        await self._board.change(task_id, lambda task: task.completed(detail, now_ms), answered)

    async def fail(self, task_id: str, reason: str) -> None:
        """Ends the task FAILED; one that has ended stays as it is."""
        now_ms = self._board.now_ms()
        await self._board.change(task_id, lambda task: task.failed(reason, now_ms))

    async def _commit(
        self, idempotency_key: str, ticket: partners.Ticket, signature_json: str = ""
    ) -> str:
        return await self._patiently(
            lambda: self._others.store.commit(idempotency_key, ticket, signature_json)
        )

    async def _send(self, task_id: str, trainer: str) -> None:
        now_ms = self._board.now_ms()
        await self._board.change(task_id, lambda task: task.sent_to(trainer, now_ms))

    async def _begin(
        self, task_id: str, status: tasks.TaskStatus, stage: str
    ) -> tasks.TrainingTask:
        now_ms = self._board.now_ms()
        return await self._board.change(
            task_id, lambda task: task.moved(status, now_ms).timing(stage, now_ms)
        )

    async def _end(self, task_id: str, stage: str) -> None:
        now_ms = self._board.now_ms()
        await self._board.change(task_id, lambda task: task.timed(stage, now_ms))

    async def _patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        return await patience.patiently(attempt, self._step_timeout_s, self._clock)

    def _reporter(self, task_id: str) -> partners.OnProgress:
        """Writes progress to the ledger, a few times a second at most."""
        last_at = -math.inf

        async def report(progress: float, detail: str) -> None:
            nonlocal last_at
            if self._clock() - last_at < _PROGRESS_EVERY_S:
                return
            last_at = self._clock()
            now_ms = self._board.now_ms()
            await self._board.change(
                task_id, lambda task: task.progressed(progress, detail, now_ms)
            )

        return report


def _quoted(questions: tuple[str, ...]) -> str:
    return ", ".join(repr(question) for question in questions)
