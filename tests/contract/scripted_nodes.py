"""Inference nodes without a model: real gRPC servers that answer what a test wants.

`python -m tests.contract.scripted_nodes HOST:PORT PIECES` serves one that hangs after so many
pieces, to be killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import grpc

from shared import errors
from shared.pb import inference_pb2, inference_pb2_grpc
from shared.rpc import server as rpc_server
from shared.security import protection as protections

WORDS = ("The ", "mason ", "did.")
SKILL = "skill@" + "a" * 64


class ScriptedNode(inference_pb2_grpc.InferenceServicer):
    """Answers `WORDS`."""

    def __init__(self, node_id: str, served: Sequence[str] = ()) -> None:
        self.node_id, self.served = node_id, list(served)
        self.lacks_cards = False
        """Whether it answers that a card is not there, whatever its status says."""
        self.hangs_after = len(WORDS) + 1
        """Pieces, after which an answer goes on only when `released`."""
        self.released = asyncio.Event()
        self.looked = asyncio.Event()
        self.status_waits: asyncio.Event | None = None
        self.asked: list[inference_pb2.GenerateRequest] = []
        self.completed: list[inference_pb2.CompleteRequest] = []
        self.time_left: list[float | None] = []
        self.authorizations: list[str] = []
        self.cancelled = asyncio.Event()
        self.running = 0

    async def Generate(
        self, request: inference_pb2.GenerateRequest, context: Any
    ) -> inference_pb2.GenerateResponse:
        await self._begins(request, context)
        return self._answer(request)

    async def GenerateStream(
        self, request: inference_pb2.GenerateRequest, context: Any
    ) -> AsyncGenerator[inference_pb2.GenerateChunk, None]:
        try:
            await self._begins(request, context)
            for place, word in enumerate(WORDS):
                if place == self.hangs_after:
                    await self.released.wait()
                token = inference_pb2.TokenLogprob(
                    token=word,
                    bytes=word.encode(),
                    logprob=-0.5,
                    top=[inference_pb2.TopLogprob(token=word, bytes=word.encode(), logprob=-0.5)],
                )
                yield inference_pb2.GenerateChunk(text=word, logprobs=[token])
            yield inference_pb2.GenerateChunk(final=self._answer(request))
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise

    async def CompleteStream(
        self, request: inference_pb2.CompleteRequest, context: Any
    ) -> AsyncGenerator[inference_pb2.CompleteChunk, None]:
        self.completed.append(request)
        yield inference_pb2.CompleteChunk(text="pass")
        final = inference_pb2.CompleteResponse(text="pass", new_tokens=1, finish_reason="length")
        yield inference_pb2.CompleteChunk(final=final)

    async def GetNodeStatus(
        self, request: inference_pb2.GetNodeStatusRequest, context: Any
    ) -> inference_pb2.NodeStatus:
        if self.status_waits is not None:
            await self.status_waits.wait()
        self.looked.set()
        return inference_pb2.NodeStatus(
            node_id=self.node_id,
            base_model="scripted",
            served=self.served,
            resident=self.served,
            store_connected=True,
            running=self.running,
            most_rows=4,
        )

    async def PinCard(
        self, request: inference_pb2.PinCardRequest, context: Any
    ) -> inference_pb2.PinCardResponse:
        if request.card not in self.served:
            raise errors.NotFoundError(f"card {request.card} is not served by this node")
        return inference_pb2.PinCardResponse(card=request.card)

    async def _begins(self, request: inference_pb2.GenerateRequest, context: Any) -> None:
        self.asked.append(request)
        self.time_left.append(context.time_remaining())
        metadata = dict(context.invocation_metadata())
        self.authorizations.append(str(metadata.get("authorization", "")))
        if self.lacks_cards:
            raise errors.NotFoundError(f"card {request.model} is not served by this node")
        if self.hangs_after == 0:
            await self.released.wait()

    def _answer(self, request: inference_pb2.GenerateRequest) -> inference_pb2.GenerateResponse:
        card = request.model if "@" in request.model else ""
        return inference_pb2.GenerateResponse(
            answer="".join(WORDS), card=card, new_tokens=len(WORDS), finish_reason="stop"
        )


def _server(
    node: ScriptedNode, address: str, protection: protections.Protection
) -> rpc_server.Server:
    def add(grpc_server: grpc.aio.Server) -> str:
        inference_pb2_grpc.add_InferenceServicer_to_server(node, grpc_server)
        return inference_pb2.DESCRIPTOR.services_by_name["Inference"].full_name

    return rpc_server.Server([add], address, protection)


@contextlib.asynccontextmanager
async def serving(
    node: ScriptedNode, protection: protections.Protection = protections.OPEN
) -> AsyncIterator[str]:
    """Serves a node; yields its address."""
    running = _server(node, "127.0.0.1:0", protection)
    await running.start()
    try:
        yield f"127.0.0.1:{running.port}"
    finally:
        await running.stop()


async def _run(address: str, pieces: int) -> None:
    node = ScriptedNode(address)
    node.hangs_after = pieces
    server = _server(node, address, protections.OPEN)
    await server.start()
    await rpc_server.until_signal()
    # As a node does that is told to end: it turns new calls away and lets running ones end.
    node.released.set()
    await server.stop()


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1], int(sys.argv[2])))
