"""The factory over gRPC: translates between protobuf and the domain, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from services.factory import (
    dissonance,
    feedback,
    feedback_desk,
    nightly,
    queue,
    statuses,
    tasks,
    visibility,
)
from shared import errors
from shared.pb import factory_pb2, factory_pb2_grpc, types_pb2
from shared.rpc import access, signal_messages
from shared.security import callers

SERVICE_NAME = factory_pb2.DESCRIPTOR.services_by_name["Factory"].full_name


class FactoryService(factory_pb2_grpc.FactoryServicer):
    """Serves `skillmesh.v1.Factory`."""

    def __init__(
        self,
        factory: queue.SkillFactory,
        shift: nightly.NightShift,
        desk: feedback_desk.FeedbackDesk,
        admitted: callers.Callers | None = None,
    ) -> None:
        """Takes the domain objects, and those who may call; everybody by default."""
        self._factory, self._shift, self._desk = factory, shift, desk
        self._admitted = admitted or callers.Callers()

    def add_to(self, server: grpc.aio.Server) -> str:
        """Registers the service and returns its full name."""
        factory_pb2_grpc.add_FactoryServicer_to_server(self, server)
        return SERVICE_NAME

    async def ReportDissonance(
        self, request: factory_pb2.CognitiveDissonance, context: Any
    ) -> factory_pb2.ReportDissonanceResponse:
        """Opens a task for a gap, unless an open one covers it or there is nothing to learn."""
        event = dissonance.CognitiveDissonance(
            event_id=request.event_id,
            query=request.query,
            confidence=request.confidence,
            detected_at_ms=request.detected_at_ms,
            domain=request.domain,
            tenant=request.tenant,
            signals=signal_messages.told(request),
            traceparent=request.traceparent,
        )
        try:
            task, created = await self._factory.report_dissonance(event)
        except errors.PreconditionError as error:
            # Not a failure: the event arrived and was weighed.
            return factory_pb2.ReportDissonanceResponse(reason=str(error))
        return factory_pb2.ReportDissonanceResponse(task_id=task.id, created=created)

    async def Teach(
        self, request: factory_pb2.TeachRequest, context: Any
    ) -> types_pb2.TrainingTask:
        """Opens a task for a topic, document or code base."""
        return self._seen(
            await self._factory.teach(
                topic=request.topic,
                document=request.document,
                repository=request.repository,
                priority=request.priority,
                idempotency_key=request.idempotency_key,
                tenant=self._caller(context).tenant,
            ),
            context,
        )

    async def GetTask(
        self, request: factory_pb2.GetTaskRequest, context: Any
    ) -> types_pb2.TrainingTask:
        """One task."""
        return self._seen(await self._factory.get(request.id), context)

    async def FindTask(
        self, request: factory_pb2.FindTaskRequest, context: Any
    ) -> types_pb2.TrainingTask:
        """The task that an event led to."""
        return self._seen(await self._factory.find(request.event_id, request.wait_s), context)

    async def ListTasks(
        self, request: factory_pb2.ListTasksRequest, context: Any
    ) -> factory_pb2.ListTasksResponse:
        """Tasks that the caller may see, the newest first."""
        statuses = [_status(number) for number in request.statuses]
        tenants, mixed = self._caller(context).tenants, bool(self._admitted.tenants)
        found = await self._factory.list(statuses, request.limit, tenants)
        seen = [visibility.seen(one, tenants, mixed) for one in found]
        return factory_pb2.ListTasksResponse(tasks=seen)

    async def WatchTask(
        self, request: factory_pb2.WatchTaskRequest, context: Any
    ) -> AsyncIterator[types_pb2.TrainingTask]:
        """The task now and at every change, until it has ended."""
        async for task in self._factory.watch(request.id):
            yield self._seen(task, context)

    async def CancelTask(
        self, request: factory_pb2.CancelTaskRequest, context: Any
    ) -> types_pb2.TrainingTask:
        """Ends a task before its card is published."""
        return self._seen(await self._factory.cancel(request.id), context)

    async def RetryTask(
        self, request: factory_pb2.RetryTaskRequest, context: Any
    ) -> types_pb2.TrainingTask:
        """Opens a task for the gap of one that ended without a card."""
        task = await self._factory.retry(request.id, request.idempotency_key)
        return self._seen(task, context)

    async def RunNightly(
        self, request: factory_pb2.RunNightlyRequest, context: Any
    ) -> factory_pb2.RunNightlyResponse:
        """Gathers now what waits for the night."""
        night = await self._shift.run_now(request.idempotency_key)
        skills = [
            factory_pb2.NightlySkill(
                task_ids=skill.tasks, domain=skill.domain, teacher=skill.teacher, base=skill.base
            )
            for skill in night.skills
        ]
        return factory_pb2.RunNightlyResponse(id=night.id, skills=skills)

    async def GiveFeedback(
        self, request: factory_pb2.GiveAnswerFeedbackRequest, context: Any
    ) -> factory_pb2.GiveAnswerFeedbackResponse:
        """Takes what a user says of an answer."""
        caller = self._caller(context)
        given = feedback.Feedback(
            idempotency_key=request.idempotency_key,
            question=request.question,
            answer=request.answer,
            card=request.card,
            is_right=request.is_right,
            correction=request.correction,
            caller=caller.name,
            tenant=caller.tenant,
        )
        outcome = await self._desk.take(given, caller.tenants)
        return factory_pb2.GiveAnswerFeedbackResponse(
            task_id="" if outcome.task is None else outcome.task.id, reason=outcome.reason
        )

    async def GetCardFeedback(
        self, request: factory_pb2.GetCardFeedbackRequest, context: Any
    ) -> factory_pb2.CardFeedback:
        """How often users called answers of a card right and wrong."""
        caller = self._caller(context)
        counts = await self._desk.counts(request.card, caller.tenants)
        return factory_pb2.CardFeedback(card=request.card, right=counts.right, wrong=counts.wrong)

    def _seen(self, task: tasks.TrainingTask, context: Any) -> types_pb2.TrainingTask:
        tenants = self._caller(context).tenants
        return visibility.seen(task, tenants, bool(self._admitted.tenants))

    def _caller(self, context: Any) -> callers.Caller:
        return access.caller_of(self._admitted, context.invocation_metadata())


def _status(number: Any) -> tasks.TaskStatus:
    try:
        return statuses.TaskStatus[types_pb2.TaskStatus.Name(number)]
    except (KeyError, ValueError):
        raise errors.InvalidInputError(f"statuses: {number} is not a status of tasks") from None
