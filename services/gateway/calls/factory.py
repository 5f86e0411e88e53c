"""Calls to the skill factory, with deadlines; translates protobuf to `domain`."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import grpc.aio

from services.gateway import domain
from shared import errors
from shared.pb import factory_pb2, factory_pb2_grpc, types_pb2
from shared.rpc import client, cost_messages

_FEEDBACK_DEADLINE_S = 60.0
"""The distiller may be asked what a question is about."""
_NIGHTLY_DEADLINE_S = 60.0
_WATCH_DEADLINE_S = 3600.0
_LISTED_TASKS = 1000

OnTask = Callable[[domain.Task], None]
"""Told every change of a task."""


class FactoryCalls:
    """The factory."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Takes a connection to it."""
        self._stub: Any = factory_pb2_grpc.FactoryStub(channel)

    async def find_task(self, event_id: str, wait_s: float) -> domain.Task | None:
        """The task that an event led to; None while there is none or nobody to ask."""
        request = factory_pb2.FindTaskRequest(event_id=event_id, wait_s=wait_s)
        deadline_s = wait_s + client.DEFAULT_DEADLINE_S
        try:
            return task_of(await client.call(self._stub.FindTask, request, deadline_s))
        except (
            errors.NotFoundError,
            errors.PreconditionError,
            errors.UnavailableError,
            errors.DeadlineError,
        ):
            return None

    async def reason_for_no_task(self, event_id: str) -> str:
        """Why nothing is learned from an event; empty while nobody knows."""
        try:
            await client.call(self._stub.FindTask, factory_pb2.FindTaskRequest(event_id=event_id))
        except errors.PreconditionError as error:
            return str(error)
        except errors.SkillmeshError:
            return ""
        return ""

    async def until_ended(self, task_id: str, on_change: OnTask | None = None) -> domain.Task:
        """Follows a task to its end, over restarts of the factory."""
        request = factory_pb2.WatchTaskRequest(id=task_id)

        async def tell(message: types_pb2.TrainingTask) -> None:
            if on_change is not None:
                on_change(task_of(message))

        async def attempt() -> domain.Task:
            last = await client.last_of_stream(
                self._stub.WatchTask, request, tell, _WATCH_DEADLINE_S
            )
            task = task_of(last)
            if not task.ended:
                raise errors.UnavailableError("the factory ended the watch; asking again")
            return task

        return await client.retried(attempt, _WATCH_DEADLINE_S)

    async def teach(
        self, idempotency_key: str, topic: str = "", document: str = "", repository: str = ""
    ) -> domain.Task:
        """Opens a learning task for a topic, a document of the knowledge folder or a code base."""
        request = factory_pb2.TeachRequest(
            idempotency_key=idempotency_key,
            topic=topic,
            document=document,
            repository=repository,
        )
        return task_of(await client.call(self._stub.Teach, request))

    async def feedback(
        self,
        idempotency_key: str,
        question: str,
        answer: str = "",
        card: str = "",
        is_right: bool = False,
        correction: str = "",
    ) -> domain.FeedbackTaken:
        """Says what a user thinks of an answer.

        Args:
            idempotency_key: the same again returns the first outcome.
            question: that was asked.
            answer: that was given; empty where nobody kept it.
            card: that gave it, `name@digest`; empty: the bare base model.
            is_right: whether the answer was.
            correction: the right answer, of a wrong one; empty where the user does not know it.
        """
        request = factory_pb2.GiveAnswerFeedbackRequest(
            idempotency_key=idempotency_key,
            question=question,
            answer=answer,
            card=card,
            is_right=is_right,
            correction=correction,
        )
        reply = await client.call(self._stub.GiveFeedback, request, _FEEDBACK_DEADLINE_S)
        return domain.FeedbackTaken(reply.task_id, reply.reason)

    async def card_feedback(self, card: str) -> domain.CardFeedback:
        """How often users called answers right and wrong.

        Args:
            card: `name@digest`; a name for all its versions; empty for the bare base model.
        """
        request = factory_pb2.GetCardFeedbackRequest(card=card)
        reply = await client.call(self._stub.GetCardFeedback, request)
        return domain.CardFeedback(reply.card, reply.right, reply.wrong)

    async def run_nightly(self, idempotency_key: str) -> list[domain.NightlySkill]:
        """Gathers now what waits for the night; the skills in the order they are learned."""
        request = factory_pb2.RunNightlyRequest(idempotency_key=idempotency_key)
        reply = await client.call(self._stub.RunNightly, request, _NIGHTLY_DEADLINE_S)
        return [
            domain.NightlySkill(tuple(one.task_ids), one.domain, one.teacher, one.base)
            for one in reply.skills
        ]

    async def task(self, task_id: str) -> domain.Task:
        """One task.

        Raises:
            errors.NotFoundError: there is none with that id.
        """
        return task_of(
            await client.call(self._stub.GetTask, factory_pb2.GetTaskRequest(id=task_id))
        )

    async def cancel(self, task_id: str) -> domain.Task:
        """Ends a task before its time.

        Raises:
            errors.PreconditionError: it has ended already.
        """
        request = factory_pb2.CancelTaskRequest(id=task_id)
        return task_of(await client.call(self._stub.CancelTask, request))

    async def retry(self, task_id: str, idempotency_key: str = "") -> domain.Task:
        """Opens a task with the questions of one that failed or was cancelled.

        Args:
            task_id: of that one.
            idempotency_key: makes a repeated call one retry.

        Raises:
            errors.PreconditionError: it has not failed.
        """
        request = factory_pb2.RetryTaskRequest(
            id=task_id, idempotency_key=idempotency_key or uuid.uuid4().hex
        )
        return task_of(await client.call(self._stub.RetryTask, request))

    async def tasks(self) -> list[domain.Task]:
        """All tasks, the newest first."""
        request = factory_pb2.ListTasksRequest(limit=_LISTED_TASKS)
        reply = await client.call(self._stub.ListTasks, request)
        return [task_of(task) for task in reply.tasks]


def task_of(message: Any) -> domain.Task:
    """A task out of its message."""
    return domain.Task(
        id=message.id,
        trigger_query=message.trigger_query,
        other_queries=tuple(message.other_queries),
        domain=message.domain,
        priority=message.priority,
        status=types_pb2.TaskStatus.Name(message.status),
        card=message.card,
        error=message.error,
        progress=message.progress,
        detail=message.detail,
        stage_times=tuple(
            domain.StageTime(time.stage, time.seconds) for time in message.stage_times
        ),
        created_at_ms=message.created_at_ms,
        updated_at_ms=message.updated_at_ms,
        retry_of=message.retry_of,
        spent=cost_messages.told(message.spent),
        joined_into=message.joined_into,
        repository=message.repository,
        commit_id=message.commit_id,
    )
