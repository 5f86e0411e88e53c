"""The other services over gRPC, in the factory's own words (`partners`).

Beside `service` the one module of the factory that knows protobuf. Calls carry deadlines and raise
typed errors; whether to try again is decided by the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from services.factory import feedback, messages, partners, store_client, trainers
from shared import costs, discovery, errors
from shared import settings as config
from shared.pb import (
    distiller_pb2,
    distiller_pb2_grpc,
    inference_pb2,
    inference_pb2_grpc,
    router_pb2_grpc,
    trainer_pb2,
    trainer_pb2_grpc,
)
from shared.rpc import client, cost_messages, embedding
from shared.security import protection as protections

_LOCATE_S = 20.0
"""A question that takes longer to locate is taken without its place."""
_GENERATE_S = 60.0
_PROBE_TOKENS = 8
_REPOSITORIES_S = 60.0
"""Git is asked about each of them."""
_HEALTH_S = 5.0
"""A trainer at work may be slow to say that it is there."""
_EMBED_S = 5.0
"""A question that takes longer to embed is compared with no other."""


class DistillerClient:
    """`partners.Distiller` over a channel."""

    def __init__(self, channel: grpc.aio.Channel, step_timeout_s: float) -> None:
        """Takes the channel, and the longest time for one distillation."""
        self._stub: Any = distiller_pb2_grpc.DistillerStub(channel)
        self._step_timeout_s = step_timeout_s

    async def locate(self, query: str) -> str:
        """The topic key of a question."""
        request = distiller_pb2.LocateRequest(queries=[query])
        response = await client.call(self._stub.Locate, request, _LOCATE_S)
        return response.locations[0].topic_key if response.locations else ""

    async def distil(
        self,
        task_id: str,
        queries: Sequence[str],
        topic: str,
        document: str,
        on_progress: partners.OnProgress,
        teacher: str = "",
        retry_of: Sequence[str] = (),
        repository: str = "",
        corrections: Sequence[feedback.Correction] = (),
        follows: partners.Followed | None = None,
    ) -> partners.Distilled:
        """Question/answer pairs about a gap, or samples of a code base."""
        request = distiller_pb2.DistilRequest(
            task_id=task_id,
            queries=queries,
            topic=topic,
            document=document,
            teacher=teacher,
            retry_of=retry_of,
            repository=repository,
            corrections=messages.to_corrections(corrections),
            follows=None if follows is None else messages.to_followed(follows),
        )
        return await self._distilled(request, on_progress)

    async def repositories(self) -> list[partners.Repository]:
        """The code bases that may be learned."""
        request = distiller_pb2.ListRepositoriesRequest()
        response = await client.call(self._stub.ListRepositories, request, _REPOSITORIES_S)
        return [
            partners.Repository(one.name, one.commit_id, one.error) for one in response.repositories
        ]

    async def enlarge(
        self,
        task_id: str,
        of_task: str,
        weak: Sequence[str],
        on_progress: partners.OnProgress,
    ) -> partners.Distilled:
        """More wordings of what a task was distilled to."""
        request = distiller_pb2.DistilRequest(task_id=task_id, of_task=of_task, weak=weak)
        return await self._distilled(request, on_progress)

    async def _distilled(
        self, request: distiller_pb2.DistilRequest, on_progress: partners.OnProgress
    ) -> partners.Distilled:
        result = await _result(self._stub.Distil, request, on_progress, self._step_timeout_s)
        return partners.Distilled(
            dataset=messages.ticket(result.dataset),
            skill_name=result.skill_name,
            domain=result.domain,
            description=result.description,
            teacher=result.teacher,
            facts=result.facts,
            questions=result.questions,
            held_out=result.held_out,
            triggers=tuple(
                partners.Trigger(trigger.query, trigger.expected_answer)
                for trigger in result.triggers
            ),
            unanswered=tuple(result.unanswered),
            rejected=dict(result.rejected),
            code_base=messages.code_base(result),
        )

    async def cancel(self, task_ids: Sequence[str]) -> None:
        """Ends what is under way."""
        request = distiller_pb2.CancelDistilRequest(task_ids=task_ids)
        await client.call(self._stub.CancelDistil, request)

    async def spending(self, task_id: str) -> costs.Spent:
        """What the teachers of a task cost so far."""
        request = distiller_pb2.GetSpendingRequest(task_id=task_id)
        return cost_messages.told(await client.call(self._stub.GetSpending, request))


class TrainerClient:
    """`partners.Trainer` over a channel."""

    def __init__(self, channel: grpc.aio.Channel, step_timeout_s: float) -> None:
        """Takes the channel, and the longest time for one training."""
        self._stub: Any = trainer_pb2_grpc.TrainerStub(channel)
        self._step_timeout_s = step_timeout_s

    async def train(
        self, order: partners.TrainingOrder, on_progress: partners.OnProgress
    ) -> partners.Trained:
        """Trains a draft."""
        request = trainer_pb2.TrainRequest(
            task_id=order.run_id,
            dataset=messages.to_ticket(order.dataset),
            skill_name=order.skill_name,
            version=order.version,
            domain=order.domain,
            description=order.description,
            teacher=order.teacher,
            seed=order.seed,
            rank_factor=order.rank_factor,
        )
        result = await _result(self._stub.Train, request, on_progress, self._step_timeout_s)
        return partners.Trained(
            draft=messages.ticket(result.draft),
            steps=result.steps,
            final_loss=result.final_loss,
            trained_right=result.trained_right,
            seconds=result.seconds,
        )

    async def prove(
        self,
        run_id: str,
        dataset: partners.Ticket,
        draft: partners.Ticket,
        triggers: Sequence[partners.Trigger],
        on_progress: partners.OnProgress,
        before: partners.Published | None = None,
    ) -> partners.Proof:
        """Measures a draft."""
        request = trainer_pb2.ProveRequest(
            task_id=run_id,
            dataset=messages.to_ticket(dataset),
            draft=messages.to_ticket(draft),
            triggers=messages.to_triggers(triggers),
            previous=None if before is None else messages.to_published(before),
        )
        result = await _result(self._stub.Prove, request, on_progress, self._step_timeout_s)
        return partners.Proof(
            passed=result.passed,
            rows=messages.rows(result.rows),
            card=messages.ticket(result.card) if result.HasField("card") else None,
            seconds=result.seconds,
            signature_json=result.signature_json,
            curable=result.curable,
            wrong=tuple(result.wrong),
        )

    async def recheck(
        self,
        recheck_id: str,
        card: partners.Published,
        triggers: Sequence[partners.Trigger],
        on_progress: partners.OnProgress,
    ) -> partners.Rechecked:
        """Measures a published card again."""
        request = trainer_pb2.RecheckRequest(
            id=recheck_id,
            published=messages.to_published(card),
            triggers=messages.to_triggers(triggers),
        )
        result = await _result(self._stub.Recheck, request, on_progress, self._step_timeout_s)
        return partners.Rechecked(messages.rows(result.rows), messages.rows(result.recorded))


class InferenceClient:
    """`partners.Inference` over a channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Takes the channel."""
        self._stub: Any = inference_pb2_grpc.InferenceStub(channel)

    async def ask(self, query: str) -> partners.Reply:
        """The answer a user would get now."""
        request = inference_pb2.GenerateRequest(query=query, no_learning=True)
        response = await client.call(self._stub.Generate, request, _GENERATE_S)
        return partners.Reply(answer=response.answer, card=response.card)

    async def complete(self, prefix: str, model: str) -> partners.Reply:
        """What a card writes behind some text; a few tokens tell."""
        request = inference_pb2.CompleteRequest(
            prefix=prefix, model=model, max_new_tokens=_PROBE_TOKENS
        )
        response = await client.call(self._stub.Complete, request, _GENERATE_S)
        return partners.Reply(answer=response.text, card=response.card)


class Connections:
    """The channels to all of them."""

    def __init__(self, settings: config.Settings, protection: protections.Protection) -> None:
        """Prepares the channels; they connect at first use."""
        step_timeout_s = settings.factory.step_timeout_s
        self._channels: list[grpc.aio.Channel] = []

        def opened(address: str) -> grpc.aio.Channel:
            self._channels.append(client.channel(address, protection=protection))
            return self._channels[-1]

        to_trainers = {
            address: opened(address)
            for address in settings.trainer.addresses or (settings.trainer.address,)
        }
        self._router: Any = router_pb2_grpc.RouterStub(opened(settings.router.address))
        self._store = store_client.StoreClient(lambda: discovery.find_stores(settings), protection)
        self.partners = partners.Partners(
            distiller=DistillerClient(opened(settings.distiller.address), step_timeout_s),
            trainers=trainers.TrainerPool(
                {
                    address: TrainerClient(channel, step_timeout_s)
                    for address, channel in to_trainers.items()
                },
                lambda address: client.is_serving(to_trainers[address], _HEALTH_S),
                settings.factory.trainer_grace_s,
            ),
            store=self._store,
            inference=InferenceClient(opened(settings.inference.address)),
        )

    async def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit vectors of texts, (texts, dimension), as the router makes them."""
        return await embedding.embed(self._router, texts, _EMBED_S)

    async def close(self) -> None:
        """Closes them."""
        await self._store.close()
        for channel in self._channels:
            await channel.close(None)


async def _result(
    method: Any, request: Any, on_progress: partners.OnProgress, deadline_s: float
) -> Any:
    """The result in the last message of a progress stream."""

    async def report(update: Any) -> None:
        if not update.HasField("result"):
            await on_progress(update.progress, update.detail)

    last = await client.last_of_stream(method, request, report, deadline_s)
    if not last.HasField("result"):
        # A service that is stopped ends its streams in good order.
        raise errors.UnavailableError("the stream ended before its result; ask again")
    return last.result
