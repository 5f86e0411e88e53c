"""Calls to the services of a cluster: translates between protobuf and `domain`, with deadlines.

The only module of the command line that knows protobuf.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from google.protobuf import json_format

from services.gateway import domain
from shared import errors
from shared import settings as config
from shared.cards import manifest as manifests
from shared.pb import (
    agents_pb2,
    agents_pb2_grpc,
    cards_pb2,
    cards_pb2_grpc,
    distiller_pb2,
    distiller_pb2_grpc,
    factory_pb2,
    factory_pb2_grpc,
    hierarchy_pb2,
    hierarchy_pb2_grpc,
    inference_pb2,
    inference_pb2_grpc,
    router_pb2,
    router_pb2_grpc,
    types_pb2,
)
from shared.rpc import client, cost_messages
from shared.security import protection as protections

_ASK_DEADLINE_S = 120.0
_NIGHTLY_DEADLINE_S = 60.0
_WATCH_DEADLINE_S = 3600.0
_LISTED_TASKS = 1000

OnTask = Callable[[domain.Task], None]
"""Told every change of a task."""


class Peers:
    """Connections to one cluster; `async with connected(settings)` opens and closes them."""

    def __init__(self, settings: config.Settings) -> None:
        """Takes the addresses; connects on first use."""
        protection = protections.Protection.configured(settings)
        self._channels = [
            client.channel(address, protection=protection)
            for address in (
                settings.inference.address,
                settings.factory.address,
                settings.distiller.address,
                settings.card_store.address,
                settings.router.address,
                settings.hierarchy.address,
            )
        ]
        self._inference = inference_pb2_grpc.InferenceStub(self._channels[0])
        self._agents = agents_pb2_grpc.AgentsStub(self._channels[0])
        self._factory = factory_pb2_grpc.FactoryStub(self._channels[1])
        self._distiller = distiller_pb2_grpc.DistillerStub(self._channels[2])
        self._store = cards_pb2_grpc.CardStoreStub(self._channels[3])
        self._router = router_pb2_grpc.RouterStub(self._channels[4])
        self._hierarchy = hierarchy_pb2_grpc.HierarchyStub(self._channels[5])

    async def close(self) -> None:
        """Closes the connections."""
        for channel in self._channels:
            await channel.close(None)

    async def ask(
        self, query: str, no_learning: bool = False, model: str = "auto", agent: str = ""
    ) -> domain.Answer:
        """Asks the inference node.

        Args:
            query: what.
            no_learning: an unknown question starts no learning.
            model: `auto`: the router decides; `base`; the reference of a card.
            agent: whose memory answers; empty for none.
        """
        request = inference_pb2.GenerateRequest(
            query=query, model=model, no_learning=no_learning, agent=agent
        )
        reply = await client.call(self._inference.Generate, request, _ASK_DEADLINE_S)
        return domain.Answer(
            text=reply.answer,
            card=reply.card,
            confidence=reply.confidence,
            dissonance=reply.dissonance,
            event_id=reply.event_id,
            rewritten_query=reply.rewritten_query,
            shares=tuple((one.card, one.weight) for one in reply.cards),
            memory=reply.memory,
        )

    async def tell(self, agent: str, pairs: Sequence[tuple[str, str]], idempotency_key: str) -> int:
        """Gives an agent questions with right answers; returns how many it has to learn now."""
        request = agents_pb2.GiveFeedbackRequest(
            idempotency_key=idempotency_key,
            agent=agent,
            pairs=[agents_pb2.Feedback(question=q, answer=a) for q, a in pairs],
        )
        reply = await client.call(self._agents.GiveFeedback, request)
        return int(reply.queued)

    async def agent(self, name: str) -> domain.Agent:
        """One agent of the node."""
        request = agents_pb2.GetAgentRequest(agent=name)
        return _agent(await client.call(self._agents.GetAgent, request))

    async def agents(self) -> list[domain.Agent]:
        """All agents of the node."""
        reply = await client.call(self._agents.ListAgents, agents_pb2.ListAgentsRequest())
        return [_agent(one) for one in reply.agents]

    async def explain(self, query: str, top_k: int, threshold: float | None) -> dict[str, Any]:
        """Why the router decides a question as it does: fields as in `protos/router.proto`.

        Args:
            query: the question.
            top_k: cards to take apart.
            threshold: 0 to 1; None for the router's own.
        """
        request = router_pb2.ExplainRouteRequest(query=query, top_k=top_k, threshold=threshold)
        reply = await client.call(self._router.ExplainRoute, request)
        return json_format.MessageToDict(
            reply, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )

    async def find_task(self, event_id: str, wait_s: float) -> domain.Task | None:
        """The task that an event led to; None while there is none or nobody to ask."""
        request = factory_pb2.FindTaskRequest(event_id=event_id, wait_s=wait_s)
        deadline_s = wait_s + client.DEFAULT_DEADLINE_S
        try:
            return _task(await client.call(self._factory.FindTask, request, deadline_s))
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
            await client.call(
                self._factory.FindTask, factory_pb2.FindTaskRequest(event_id=event_id)
            )
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
                on_change(_task(message))

        async def attempt() -> domain.Task:
            last = await client.last_of_stream(
                self._factory.WatchTask, request, tell, _WATCH_DEADLINE_S
            )
            task = _task(last)
            if not task.ended:
                raise errors.UnavailableError("the factory ended the watch; asking again")
            return task

        return await client.retried(attempt, _WATCH_DEADLINE_S)

    async def add_document(self, name: str, text: str, pdf: bytes = b"") -> None:
        """Puts a document into the cluster's knowledge folder."""
        request = distiller_pb2.AddDocumentRequest(name=name, text=text, pdf=pdf)
        await client.call(self._distiller.AddDocument, request)

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
        return _task(await client.call(self._factory.Teach, request))

    async def code_base(self, task: domain.Task) -> domain.CodeBase:
        """What the distiller made of the code base of a task that it is done with."""
        request = distiller_pb2.DistilRequest(task_id=task.id, repository=task.repository)

        async def ignore(message: distiller_pb2.DistilUpdate) -> None:
            """What is kept takes no time."""

        last = await client.last_of_stream(
            self._distiller.Distil, request, ignore, _WATCH_DEADLINE_S
        )
        found = last.result.code_base
        return domain.CodeBase(
            repository=task.repository,
            commit_id=found.commit_id,
            licence=found.licence,
            teacher=last.result.teacher,
            files=found.files,
            lines=found.lines,
            chunks=found.chunks,
            samples=dict(found.samples),
            held_out=last.result.held_out,
            removed=dict(found.removed),
            skipped=dict(found.skipped),
            rejected=dict(found.rejected),
            samples_digest=last.result.dataset.digest,
            folder=found.folder,
        )

    async def manifest(self, card: str) -> manifests.Manifest:
        """The manifest of a card in the store, by `name@digest`."""
        record = await client.call(self._store.GetCard, cards_pb2.GetCardRequest(reference=card))
        return manifests.parse(record.manifest_json)

    async def run_nightly(self, idempotency_key: str) -> list[domain.NightlySkill]:
        """Gathers now what waits for the night; the skills in the order they are learned."""
        request = factory_pb2.RunNightlyRequest(idempotency_key=idempotency_key)
        reply = await client.call(self._factory.RunNightly, request, _NIGHTLY_DEADLINE_S)
        return [
            domain.NightlySkill(tuple(one.task_ids), one.domain, one.teacher, one.base)
            for one in reply.skills
        ]

    async def teachers(self) -> domain.Teachers:
        """Which teachers are asked or left alone, and what they cost today."""
        request = distiller_pb2.GetDistillerStatusRequest()
        reply = await client.call(self._distiller.GetDistillerStatus, request)
        chain = tuple(
            domain.Teacher(one.name, one.circuit, one.reason, one.open_for_s)
            for one in reply.teachers
        )
        return domain.Teachers(chain, cost_messages.told(reply.today))

    async def tasks(self) -> list[domain.Task]:
        """All tasks, the newest first."""
        request = factory_pb2.ListTasksRequest(limit=_LISTED_TASKS)
        reply = await client.call(self._factory.ListTasks, request)
        return [_task(task) for task in reply.tasks]

    async def cards(self) -> list[domain.Card]:
        """The latest version of every card."""
        reply = await client.call(self._store.ListCards, cards_pb2.ListCardsRequest())
        return [_card(card) for card in reply.cards]

    async def node(self) -> domain.Node:
        """The inference node."""
        request = inference_pb2.GetNodeStatusRequest()
        reply = await client.call(self._inference.GetNodeStatus, request)
        return domain.Node(
            base_model=reply.base_model,
            served=tuple(reply.served),
            resident=tuple(reply.resident),
            revision=reply.revision,
            store_connected=reply.store_connected,
            swaps=tuple(
                domain.Swap(card=swap.card, fetch_ms=swap.fetch_ms, swap_ms=swap.swap_ms)
                for swap in reply.swaps
            ),
        )

    async def hierarchy(self) -> domain.Hierarchy:
        """The layers that agents share."""
        request = hierarchy_pb2.GetHierarchyStatusRequest()
        status = await client.call(self._hierarchy.GetHierarchyStatus, request)
        health = await client.call(self._hierarchy.GetHealth, hierarchy_pb2.GetHealthRequest())
        return domain.Hierarchy(
            version=status.version,
            tick=status.tick,
            agents=len(status.agents),
            waiting=status.waiting,
            verdict=health.verdict,
            frozen=tuple(layer.level for layer in status.layers if layer.frozen),
        )

    async def store(self) -> domain.Store:
        """The card store."""
        reply = await client.call(self._store.GetStoreStatus, cards_pb2.GetStoreStatusRequest())
        return domain.Store(revision=reply.revision, cards=reply.cards, size_bytes=reply.bytes)


@contextlib.asynccontextmanager
async def connected(settings: config.Settings) -> AsyncIterator[Peers]:
    """Connections to the cluster of these settings, closed at the end."""
    peers = Peers(settings)
    try:
        yield peers
    finally:
        await peers.close()


async def while_restarting(
    attempt: Callable[[], Awaitable[Any]], alive: Callable[[], bool], total_s: float = 60.0
) -> Any:
    """Makes a repeatable call, patient while a supervised service comes back.

    Args:
        attempt: the call.
        alive: whether somebody restarts what crashed.
        total_s: for how long.

    Raises:
        errors.UnavailableError: nobody answers; says how to start the cluster where none runs.
    """
    try:
        return await attempt()
    except errors.UnavailableError as error:
        if not alive():
            raise errors.UnavailableError(
                "the cluster is not running: start it with `make up`"
            ) from error
    return await client.retried(attempt, total_s)


def _task(message: Any) -> domain.Task:
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


def _agent(message: Any) -> domain.Agent:
    return domain.Agent(
        agent=message.agent,
        memory=message.memory,
        examples=message.examples,
        queued=message.queued,
        rounds=message.rounds,
        is_settled=message.last_sequence == message.settled_sequence,
        mark=message.mark,
        hit_rate=message.hit_rate,
        connected=message.hierarchy_connected,
        refused=message.refused,
        given_up_count=message.given_up_count,
        given_up=tuple((one.question, one.reason) for one in message.given_up),
    )


def _card(message: Any) -> domain.Card:
    return domain.Card(
        name=message.name,
        digest=message.digest,
        version=message.version,
        domain=message.domain,
        description=message.description,
        size_bytes=message.size_bytes,
        created_at_ms=message.created_at_ms,
        aliases=tuple(message.aliases),
    )
