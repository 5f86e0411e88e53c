"""Hand-written stand-ins for distiller, trainer, card store and inference node, over real gRPC.

They keep the services' promises (the same key asked again returns the stored result), count what
was asked and what was finished, and can be held at a gate, made to fail, taken down and brought
back at the same address.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from shared import errors
from shared.cards import manifest as manifests
from shared.pb import (
    cards_pb2,
    cards_pb2_grpc,
    distiller_pb2,
    distiller_pb2_grpc,
    inference_pb2,
    inference_pb2_grpc,
    trainer_pb2,
    trainer_pb2_grpc,
    types_pb2,
)
from shared.rpc import server as rpc
from tests import doings


def ticket(kind: str, name: str) -> types_pb2.Ticket:
    """A ticket whose digest follows from its name."""
    digest = hashlib.sha256(f"{kind}/{name}".encode()).hexdigest()
    return types_pb2.Ticket(kind=kind, digest=digest, size_bytes=1000, name=name)


class FakeDistiller(distiller_pb2_grpc.DistillerServicer):
    """Knows `answers`; questions that hold a word of `places` are located there."""

    def __init__(self) -> None:
        self.answers: dict[str, str] = {}
        self.places: dict[str, str] = {}
        self.skill_name = "zorblax-trade"
        self.distil = doings.Doings()
        self.located = 0
        self.spent = types_pb2.Spending()
        self.cancelled: list[str] = []
        self.commits: dict[str, str] = {}
        """Of the repositories that may be learned, by name."""

    def add_to(self, server: grpc.aio.Server) -> None:
        distiller_pb2_grpc.add_DistillerServicer_to_server(self, server)

    async def Locate(
        self, request: distiller_pb2.LocateRequest, context: Any
    ) -> distiller_pb2.LocateResponse:
        self.located += 1
        found = []
        for query in request.queries:
            keys = [key for word, key in self.places.items() if word in query]
            found.append(distiller_pb2.Location(topic_key=keys[0] if keys else "", score=0.9))
        return distiller_pb2.LocateResponse(locations=found)

    async def CancelDistil(
        self, request: distiller_pb2.CancelDistilRequest, context: Any
    ) -> distiller_pb2.CancelDistilResponse:
        self.cancelled += request.task_ids
        return distiller_pb2.CancelDistilResponse()

    async def GetSpending(
        self, request: distiller_pb2.GetSpendingRequest, context: Any
    ) -> types_pb2.Spending:
        return self.spent

    async def Distil(
        self, request: distiller_pb2.DistilRequest, context: Any
    ) -> AsyncIterator[distiller_pb2.DistilUpdate]:
        yield distiller_pb2.DistilUpdate(progress=0.25, detail="asking the teacher")
        result = await self.distil.once(request.task_id, request, lambda: self._result(request))
        yield distiller_pb2.DistilUpdate(progress=1.0, detail="done", result=result)

    async def ListRepositories(
        self, request: distiller_pb2.ListRepositoriesRequest, context: Any
    ) -> distiller_pb2.ListRepositoriesResponse:
        return distiller_pb2.ListRepositoriesResponse(
            repositories=[
                distiller_pb2.Repository(name=name, commit_id=commit_id)
                for name, commit_id in self.commits.items()
            ]
        )

    def _samples(self, request: distiller_pb2.DistilRequest) -> distiller_pb2.DistilResult:
        return distiller_pb2.DistilResult(
            dataset=ticket("samples", request.task_id),
            skill_name=f"specialist-{request.repository}",
            domain="code",
            description=f"The code base {request.repository}",
            teacher="repository",
            facts=3,
            questions=30,
            held_out=3,
            code_base=distiller_pb2.CodeBase(
                commit_id=self.commits[request.repository],
                files=2,
                samples={"complete": 20, "write": 10},
                probe="def half(x):",
            ),
        )

    def _result(self, request: distiller_pb2.DistilRequest) -> distiller_pb2.DistilResult:
        if request.repository:
            return self._samples(request)
        for one in request.corrections:
            self.answers[one.query] = one.expected_answer
        known = [query for query in request.queries if query in self.answers]
        return distiller_pb2.DistilResult(
            dataset=ticket("dataset", request.task_id),
            skill_name=request.follows.skill_name or self.skill_name,
            domain="trade",
            description="What Zorblax trades",
            teacher="documents",
            facts=3,
            questions=30,
            held_out=3,
            triggers=[
                types_pb2.Trigger(query=query, expected_answer=self.answers[query])
                for query in known
            ],
            unanswered=[query for query in request.queries if query not in self.answers],
        )


class FakeTrainer(trainer_pb2_grpc.TrainerServicer):
    """Trains at once; `verdicts` says whether the gate lets the next drafts pass."""

    def __init__(self) -> None:
        self.verdicts: list[bool] = []
        self.train = doings.Doings()
        self.prove = doings.Doings()
        self.rechecked: list[trainer_pb2.RecheckRequest] = []
        self.worse: set[str] = set()
        """Digests of cards that answer less than they did."""

    def add_to(self, server: grpc.aio.Server) -> None:
        trainer_pb2_grpc.add_TrainerServicer_to_server(self, server)

    async def Train(
        self, request: trainer_pb2.TrainRequest, context: Any
    ) -> AsyncIterator[trainer_pb2.TrainUpdate]:
        yield trainer_pb2.TrainUpdate(progress=0.5, detail="step 20 of 40")
        result = await self.train.once(
            request.task_id,
            request,
            lambda: trainer_pb2.TrainResult(
                draft=ticket("card", f"draft-{request.task_id}"),
                steps=40,
                final_loss=0.01,
                trained_right=1.0,
                seconds=1.5,
            ),
        )
        yield trainer_pb2.TrainUpdate(progress=1.0, detail="done", result=result)

    async def Prove(
        self, request: trainer_pb2.ProveRequest, context: Any
    ) -> AsyncIterator[trainer_pb2.ProveUpdate]:
        yield trainer_pb2.ProveUpdate(progress=0.5, detail="asking unseen questions")
        result = await self.prove.once(request.task_id, request, lambda: self._verdict(request))
        yield trainer_pb2.ProveUpdate(progress=1.0, detail="done", result=result)

    async def Recheck(
        self, request: trainer_pb2.RecheckRequest, context: Any
    ) -> AsyncIterator[trainer_pb2.RecheckUpdate]:
        self.rechecked.append(request)
        right = 1 if request.published.card_digest in self.worse else 3
        recorded = trainer_pb2.GateRow(name="held_out", right=3, asked=4, required=0.5, passed=True)
        now = trainer_pb2.GateRow(
            name="held_out", right=right, asked=4, required=0.5, passed=right > 1
        )
        result = trainer_pb2.RecheckResult(rows=[now], recorded=[recorded])
        yield trainer_pb2.RecheckUpdate(progress=1.0, detail="done", result=result)

    def _verdict(self, request: trainer_pb2.ProveRequest) -> trainer_pb2.ProveResult:
        passed = self.verdicts.pop(0) if self.verdicts else True
        row = trainer_pb2.GateRow(
            name="held_out", right=3 if passed else 1, asked=4, required=0.5, passed=passed
        )
        card = ticket("card", f"card-{request.task_id}") if passed else None
        return trainer_pb2.ProveResult(
            passed=passed,
            rows=[row],
            card=card,
            seconds=0.5,
            signature_json=f"signed {request.task_id}" if passed else "",
            curable=not passed,
            wrong=[] if passed else ["What is it?"],
        )


class FakeStore(cards_pb2_grpc.CardStoreServicer):
    """Keeps what is committed; cards are of the trainings that `ordered` names."""

    def __init__(self, ordered: Callable[[], trainer_pb2.TrainRequest]) -> None:
        self.cards: list[cards_pb2.CardRecord] = []
        self.datasets = doings.Doings()
        self.published = doings.Doings()
        self.moves: list[str] = []
        self._ordered = ordered

    def add_to(self, server: grpc.aio.Server) -> None:
        cards_pb2_grpc.add_CardStoreServicer_to_server(self, server)

    async def Commit(
        self, request: cards_pb2.CommitRequest, context: Any
    ) -> cards_pb2.CommitResponse:
        kept = self.published if request.ticket.kind == "card" else self.datasets
        response = await kept.once(request.idempotency_key, request, lambda: self._commit(request))
        assert isinstance(response, cards_pb2.CommitResponse)
        return response

    async def ListCards(
        self, request: cards_pb2.ListCardsRequest, context: Any
    ) -> cards_pb2.ListCardsResponse:
        newest_first = list(reversed(self.cards))
        return cards_pb2.ListCardsResponse(cards=newest_first, revision=len(self.cards))

    async def GetCard(
        self, request: cards_pb2.GetCardRequest, context: Any
    ) -> cards_pb2.CardRecord:
        for record in self.cards:
            if request.reference == f"{record.name}@{record.digest}":
                return record
        raise errors.NotFoundError(f"no card {request.reference}")

    async def SetAlias(
        self, request: cards_pb2.SetAliasRequest, context: Any
    ) -> cards_pb2.CardRecord:
        [record] = [one for one in self.cards if one.digest == request.digest]
        self._point_to(record)
        return record

    async def ListAliasMoves(
        self, request: cards_pb2.ListAliasMovesRequest, context: Any
    ) -> cards_pb2.ListAliasMovesResponse:
        digests = [one.digest for one in self.cards if one.name == request.name]
        moves = [cards_pb2.AliasMove(digest=one) for one in self.moves if one in digests]
        return cards_pb2.ListAliasMovesResponse(moves=reversed(moves))

    @property
    def latest(self) -> str:
        """The version that the alias points to."""
        return "".join(one.version for one in self.cards if "latest" in one.aliases)

    def _point_to(self, record: cards_pb2.CardRecord) -> None:
        for one in self.cards:
            if one.name == record.name:
                del one.aliases[:]
        record.aliases.append("latest")
        self.moves.append(record.digest)

    def _commit(self, request: cards_pb2.CommitRequest) -> cards_pb2.CommitResponse:
        committed = request.ticket
        if committed.kind != "card":
            return cards_pb2.CommitResponse(revision=1, created=True)
        order = self._ordered()
        record = cards_pb2.CardRecord(
            name=order.skill_name,
            digest=committed.digest,
            version=order.version,
            signature_json=request.signature_json,
            manifest_json=_manifest(order).to_json(),
        )
        self.cards.append(record)
        self._point_to(record)
        return cards_pb2.CommitResponse(record=record, revision=2, created=True)


class FakeInference(inference_pb2_grpc.InferenceServicer):
    """Answers with the newest card of the store, or as the bare base model."""

    def __init__(self, store: FakeStore, answers: dict[str, str]) -> None:
        self._store = store
        self._answers = answers
        self.wrong: dict[str, str] = {}
        self.requests: list[inference_pb2.GenerateRequest] = []
        self.completed: list[inference_pb2.CompleteRequest] = []
        self.behind = 0
        """So many completions before it has heard of the newest card."""

    def add_to(self, server: grpc.aio.Server) -> None:
        inference_pb2_grpc.add_InferenceServicer_to_server(self, server)

    async def Generate(
        self, request: inference_pb2.GenerateRequest, context: Any
    ) -> inference_pb2.GenerateResponse:
        self.requests.append(request)
        if not self._store.cards:
            return inference_pb2.GenerateResponse(answer="I do not know.")
        card = self._store.cards[-1]
        answer = self.wrong.get(request.query) or self._answers.get(request.query, "")
        return inference_pb2.GenerateResponse(
            answer=f"It is {answer}.", card=f"{card.name}@{card.digest}"
        )

    async def Complete(
        self, request: inference_pb2.CompleteRequest, context: Any
    ) -> inference_pb2.CompleteResponse:
        self.completed.append(request)
        cards = [f"{one.name}@{one.digest}" for one in self._store.cards]
        if len(self.completed) <= self.behind or request.model not in cards:
            raise errors.NotFoundError(f"card {request.model} is not served by this node")
        return inference_pb2.CompleteResponse(text=" x", card=request.model)


class FakeServices:
    """All four, each on a port of its own."""

    def __init__(self) -> None:
        # Calls that no test makes are left to gRPC, which answers UNIMPLEMENTED.
        self.distiller = FakeDistiller()  # type: ignore[abstract]
        self.trainer = FakeTrainer()
        self.store = FakeStore(lambda: self.trainer.train.requests[-1])  # type: ignore[abstract]
        self.inference = FakeInference(self.store, self.distiller.answers)  # type: ignore[abstract]
        self._addresses: dict[str, str] = {}
        self._servers: dict[str, grpc.aio.Server] = {}

    async def start(self) -> None:
        for name in ("distiller", "trainer", "store", "inference"):
            await self.bring_up(name)

    async def stop(self) -> None:
        for name in list(self._servers):
            await self.take_down(name)

    def address(self, name: str) -> str:
        return self._addresses[name]

    async def bring_up(self, name: str) -> None:
        """Starts a service, at the address it had before."""
        server = grpc.aio.server(interceptors=[rpc.ErrorInterceptor()], options=rpc.OPTIONS)
        getattr(self, name).add_to(server)
        port = server.add_insecure_port(self._addresses.get(name, "127.0.0.1:0"))
        self._addresses[name] = f"127.0.0.1:{port}"
        await server.start()
        self._servers[name] = server

    async def take_down(self, name: str) -> None:
        """Stops a service at once; running calls are cut off."""
        await self._servers.pop(name).stop(None)


def _manifest(order: trainer_pb2.TrainRequest) -> manifests.Manifest:
    return manifests.Manifest(
        name=order.skill_name,
        version=order.version,
        base_model=manifests.BaseModelReference(id="b", revision="r", fingerprint="0" * 64),
        target_modules=(),
        domain=order.domain,
        description=order.description,
        lineage=manifests.Lineage(
            task_id=order.task_id,
            teacher=order.teacher,
            dataset_digest=order.dataset.digest,
            recipe={},
            seed=order.seed,
            code_version="1",
        ),
        created_at="2026-01-01T00:00:00+00:00",
    )
