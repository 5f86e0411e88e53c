"""Translates `skillmesh.v1.Trainer` to and from the domain, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc

from services.trainer import gate, trainer, workshop
from shared.pb import trainer_pb2, trainer_pb2_grpc, types_pb2
from shared.rpc import runs

FULL_NAME = trainer_pb2.DESCRIPTOR.services_by_name["Trainer"].full_name


class TrainerService(trainer_pb2_grpc.TrainerServicer):
    """The gRPC face of the trainer."""

    def __init__(self, shop: workshop.Workshop, seed: int) -> None:
        """Takes who does the work, and what is added to every seed."""
        self._shop, self._seed = shop, seed
        self._trainings = runs.Runs[workshop.Trained]()
        self._proofs = runs.Runs[workshop.Proved]()
        self._rechecks = runs.Runs[workshop.Rechecked]()

    def add_to(self, server: grpc.aio.Server) -> str:
        """Registers with a server and returns the service's full name."""
        trainer_pb2_grpc.add_TrainerServicer_to_server(self, server)
        return FULL_NAME

    async def close(self) -> None:
        """Ends all runs; checkpoints stand."""
        await self._trainings.close()
        await self._proofs.close()
        await self._rechecks.close()

    async def Train(
        self, request: trainer_pb2.TrainRequest, context: Any
    ) -> AsyncIterator[trainer_pb2.TrainUpdate]:
        """Streams progress, then the draft."""
        order = trainer.Order(
            task_id=request.task_id,
            dataset_digest=request.dataset.digest,
            skill_name=request.skill_name,
            version=request.version,
            domain=request.domain,
            description=request.description,
            teacher=request.teacher,
            seed=request.seed + self._seed,
            rank_factor=request.rank_factor or 1,
            kind=request.dataset.kind or "dataset",
        )
        async for news in self._trainings.follow(
            order.task_id, lambda report: self._shop.train(order, report)
        ):
            if isinstance(news, runs.Progress):
                yield _training(news)
            else:
                yield trainer_pb2.TrainUpdate(
                    progress=1.0, detail="trained", result=_trained(news, order.skill_name)
                )

    async def Prove(
        self, request: trainer_pb2.ProveRequest, context: Any
    ) -> AsyncIterator[trainer_pb2.ProveUpdate]:
        """Streams progress, then the gate's table."""
        previous = _published(request.previous) if request.HasField("previous") else None
        async for news in self._proofs.follow(
            request.task_id,
            lambda report: self._shop.prove(
                request.task_id,
                request.dataset.digest,
                request.draft.digest,
                _triggers(request.triggers),
                report,
                previous,
            ),
        ):
            if isinstance(news, runs.Progress):
                yield trainer_pb2.ProveUpdate(progress=news.share, detail=news.detail)
            else:
                yield trainer_pb2.ProveUpdate(
                    progress=1.0, detail="proved", result=_proved(news, request.draft.name)
                )

    async def Recheck(
        self, request: trainer_pb2.RecheckRequest, context: Any
    ) -> AsyncIterator[trainer_pb2.RecheckUpdate]:
        """Streams progress, then the gate's table now and as it was recorded."""
        published, triggers = _published(request.published), _triggers(request.triggers)
        async for news in self._rechecks.follow(
            request.id, lambda report: self._shop.recheck(published, triggers, report)
        ):
            if isinstance(news, runs.Progress):
                yield trainer_pb2.RecheckUpdate(progress=news.share, detail=news.detail)
            else:
                result = trainer_pb2.RecheckResult(
                    rows=map(_row, news.rows), recorded=map(_row, news.recorded)
                )
                yield trainer_pb2.RecheckUpdate(progress=1.0, detail="proved", result=result)


def _triggers(triggers: Iterable[types_pb2.Trigger]) -> list[gate.Trigger]:
    return [gate.Trigger(one.query, one.expected_answer) for one in triggers]


def _published(card: trainer_pb2.PublishedCard) -> workshop.PublishedCard:
    return workshop.PublishedCard(card.card_digest, card.dataset_digest)


def _row(row: workshop.GateRow) -> trainer_pb2.GateRow:
    return trainer_pb2.GateRow(
        name=row.name,
        right=row.right,
        asked=row.asked,
        required=row.required,
        passed=row.passed,
    )


def _training(news: runs.Progress) -> trainer_pb2.TrainUpdate:
    figures = news.figures
    return trainer_pb2.TrainUpdate(
        progress=news.share,
        detail=news.detail,
        step=int(figures.get("step", 0)),
        loss=figures.get("loss", 0.0),
        tokens_per_s=figures.get("tokens_per_s", 0.0),
        left_s=figures.get("left_s", 0.0),
    )


def _trained(trained: workshop.Trained, name: str) -> trainer_pb2.TrainResult:
    return trainer_pb2.TrainResult(
        draft=types_pb2.Ticket(
            kind="card", digest=trained.draft_digest, size_bytes=trained.draft_bytes, name=name
        ),
        steps=trained.steps,
        final_loss=trained.final_loss,
        trained_right=trained.trained_right,
        seconds=trained.seconds,
    )


def _proved(proved: workshop.Proved, name: str) -> trainer_pb2.ProveResult:
    result = trainer_pb2.ProveResult(
        passed=proved.passed,
        rows=map(_row, proved.rows),
        seconds=proved.seconds,
        signature_json=proved.signature_json,
        curable=proved.curable,
        wrong=proved.wrong,
    )
    if proved.passed:
        result.card.CopyFrom(
            types_pb2.Ticket(
                kind="card", digest=proved.card_digest, size_bytes=proved.card_bytes, name=name
            )
        )
    return result
