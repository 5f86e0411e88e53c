"""Translates `skillmesh.v1.Distiller` to and from the domain, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import grpc

from services.distiller import code_bases, delivery, distillation, knowledge, spending
from services.distiller.providers import base
from shared import repositories
from shared.pb import distiller_pb2, distiller_pb2_grpc, types_pb2
from shared.rpc import cost_messages, runs

Delivered = delivery.Delivered | code_bases.Delivered

FULL_NAME = distiller_pb2.DESCRIPTOR.services_by_name["Distiller"].full_name

Work = Callable[[distillation.DistilRequest, runs.Report], Coroutine[None, None, Delivered]]
"""Makes and delivers a distillation, see `delivery.Delivery.work`."""


class DistillerService(distiller_pb2_grpc.DistillerServicer):
    """The gRPC face of the distiller."""

    def __init__(
        self,
        active: runs.Runs[Delivered],
        work: Work,
        provider: base.CloudProvider,
        folder: knowledge.KnowledgeFolder,
        ledger: spending.Ledger,
        code: code_bases.CodeBases,
    ) -> None:
        """Takes what it talks to."""
        self._runs = active
        self._work = work
        self._provider = provider
        self._folder = folder
        self._ledger = ledger
        self._code = code

    def add_to(self, server: grpc.aio.Server) -> str:
        """Registers with a server and returns the service's full name."""
        distiller_pb2_grpc.add_DistillerServicer_to_server(self, server)
        return FULL_NAME

    async def Distil(
        self, request: distiller_pb2.DistilRequest, context: Any
    ) -> AsyncIterator[distiller_pb2.DistilUpdate]:
        """Streams progress, then the result."""
        wanted = distillation.DistilRequest(
            task_id=request.task_id,
            queries=tuple(request.queries),
            topic=request.topic,
            document=request.document,
            of_task=request.of_task,
            weak=tuple(request.weak),
            teacher=request.teacher,
            retry_of=tuple(request.retry_of),
            repository=request.repository,
            corrections=tuple(
                distillation.Correction(one.query, one.expected_answer, one.wrong_answer)
                for one in request.corrections
            ),
            follows=distillation.Followed(
                request.follows.skill_name, request.follows.domain, request.follows.dataset_digest
            )
            if request.HasField("follows")
            else None,
        )
        work: Work = self._code.work if wanted.repository else self._work
        async for news in self._runs.follow(wanted.task_id, lambda report: work(wanted, report)):
            if isinstance(news, runs.Progress):
                yield distiller_pb2.DistilUpdate(progress=news.share, detail=news.detail)
            else:
                yield distiller_pb2.DistilUpdate(
                    progress=1.0, detail="distilled", result=_to_result(news)
                )

    async def CancelDistil(
        self, request: distiller_pb2.CancelDistilRequest, context: Any
    ) -> distiller_pb2.CancelDistilResponse:
        """Ends distillations that are under way."""
        for task_id in request.task_ids:
            await self._runs.cancel(task_id)
        return distiller_pb2.CancelDistilResponse()

    async def Locate(
        self, request: distiller_pb2.LocateRequest, context: Any
    ) -> distiller_pb2.LocateResponse:
        """Says what questions are about."""
        found = await self._provider.locate(tuple(request.queries))
        return distiller_pb2.LocateResponse(
            locations=[
                distiller_pb2.Location(topic_key=one.topic_key, score=one.score) for one in found
            ]
        )

    async def AddDocument(
        self, request: distiller_pb2.AddDocumentRequest, context: Any
    ) -> distiller_pb2.AddDocumentResponse:
        """Puts a document into the knowledge folder."""
        # A PDF is read through before it is taken, which may take seconds.
        if request.pdf:
            digest = await asyncio.to_thread(self._folder.add_pdf, request.name, request.pdf)
        else:
            digest = await asyncio.to_thread(self._folder.add, request.name, request.text)
        return distiller_pb2.AddDocumentResponse(name=request.name, digest=digest)

    async def ListRepositories(
        self, request: distiller_pb2.ListRepositoriesRequest, context: Any
    ) -> distiller_pb2.ListRepositoriesResponse:
        """The repositories that may be learned."""
        return distiller_pb2.ListRepositoriesResponse(
            repositories=[
                distiller_pb2.Repository(name=one.name, commit_id=one.commit_id, error=one.error)
                for one in await self._code.heads()
            ]
        )

    async def GetSpending(
        self, request: distiller_pb2.GetSpendingRequest, context: Any
    ) -> types_pb2.Spending:
        """What the teachers of a task cost so far."""
        return cost_messages.message(self._ledger.of_task(request.task_id))

    async def GetDistillerStatus(
        self, request: distiller_pb2.GetDistillerStatusRequest, context: Any
    ) -> distiller_pb2.DistillerStatus:
        """Which teachers are asked, and what they cost today."""
        return distiller_pb2.DistillerStatus(
            teachers=[
                distiller_pb2.Teacher(
                    name=one.name,
                    circuit=one.state.value,
                    reason=one.reason,
                    open_for_s=one.open_for_s,
                )
                for one in self._provider.circuits()
            ],
            today=cost_messages.message(self._ledger.today()),
        )


def _to_result(delivered: Delivered) -> distiller_pb2.DistilResult:
    if isinstance(delivered, code_bases.Delivered):
        return _of_code_base(delivered)
    result = delivered.result
    return distiller_pb2.DistilResult(
        dataset=types_pb2.Ticket(
            kind="dataset",
            digest=delivered.digest,
            size_bytes=delivered.size_bytes,
            name=result.skill_name,
        ),
        skill_name=result.skill_name,
        domain=result.domain,
        description=result.description,
        teacher=result.teacher,
        facts=len(result.pairs),
        questions=sum(1 + len(pair.paraphrases) for pair in result.pairs),
        held_out=sum(len(pair.held_out) for pair in result.pairs),
        triggers=[
            types_pb2.Trigger(query=one.query, expected_answer=one.expected_answer)
            for one in result.triggers
        ],
        unanswered=result.unanswered,
        rejected=result.rejected,
    )


def _of_code_base(delivered: code_bases.Delivered) -> distiller_pb2.DistilResult:
    found = delivered.code_base
    name = repositories.card_of(found.repository)
    return distiller_pb2.DistilResult(
        dataset=types_pb2.Ticket(
            kind="samples",
            digest=delivered.digest,
            size_bytes=delivered.size_bytes,
            name=name,
        ),
        skill_name=name,
        domain="code",
        description=f"The code base {found.repository} at commit {found.commit_id[:12]}",
        teacher=found.teacher,
        facts=found.chunks,
        questions=sum(found.samples.values()),
        held_out=found.held_out,
        code_base=distiller_pb2.CodeBase(
            commit_id=found.commit_id,
            licence=found.licence,
            files=found.files,
            lines=found.lines,
            chunks=found.chunks,
            samples=found.samples,
            removed=found.removed,
            skipped=found.skipped,
            rejected=found.rejected,
            probe=found.probe,
            folder=found.folder,
        ),
    )
