"""Calls to the distiller, with deadlines; translates protobuf to `domain`."""

from __future__ import annotations

from typing import Any

import grpc.aio

from services.gateway import domain
from shared.pb import distiller_pb2, distiller_pb2_grpc
from shared.rpc import client, cost_messages

_WATCH_DEADLINE_S = 3600.0


class DistillerCalls:
    """The distiller."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Takes a connection to it."""
        self._stub: Any = distiller_pb2_grpc.DistillerStub(channel)

    async def add_document(self, name: str, text: str, pdf: bytes = b"") -> None:
        """Puts a document into the cluster's knowledge folder."""
        request = distiller_pb2.AddDocumentRequest(name=name, text=text, pdf=pdf)
        await client.call(self._stub.AddDocument, request)

    async def code_base(self, task: domain.Task) -> domain.CodeBase:
        """What the distiller made of the code base of a task that it is done with."""
        request = distiller_pb2.DistilRequest(task_id=task.id, repository=task.repository)

        async def ignore(message: distiller_pb2.DistilUpdate) -> None:
            """What is kept takes no time."""

        last = await client.last_of_stream(self._stub.Distil, request, ignore, _WATCH_DEADLINE_S)
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

    async def teachers(self) -> domain.Teachers:
        """Which teachers are asked or left alone, and what they cost today."""
        request = distiller_pb2.GetDistillerStatusRequest()
        reply = await client.call(self._stub.GetDistillerStatus, request)
        chain = tuple(
            domain.Teacher(one.name, one.circuit, one.reason, one.open_for_s)
            for one in reply.teachers
        )
        return domain.Teachers(chain, cost_messages.told(reply.today))
