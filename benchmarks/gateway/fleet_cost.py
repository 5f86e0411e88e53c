"""`python -m benchmarks.gateway fleet`: what the fleet adds to a call of a node.

The node has no model and answers at once, over gRPC on loopback, in this process. It is asked
directly and through the fleet, in turn, so that a machine that slows down weighs on both.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

import grpc

from benchmarks import results
from services.gateway import domain
from services.gateway.nodes import fleet as fleets
from services.gateway.nodes import grpc_node
from shared import settings as config
from shared.pb import inference_pb2, inference_pb2_grpc
from shared.rpc import server as rpc_server

_ROUNDS, _WARMING = 2000, 200
_WORDS = ("The ", "mason ", "did.")
_DEADLINE_S = 10.0
_QUESTION = domain.Conversation((domain.Message("user", "Who built it?"),))
Call = Callable[[], Awaitable[object]]


class _Node(inference_pb2_grpc.InferenceServicer):
    async def Generate(
        self, request: inference_pb2.GenerateRequest, context: Any
    ) -> inference_pb2.GenerateResponse:
        return inference_pb2.GenerateResponse(answer="".join(_WORDS))

    async def GenerateStream(
        self, request: inference_pb2.GenerateRequest, context: Any
    ) -> AsyncGenerator[inference_pb2.GenerateChunk, None]:
        for word in _WORDS:
            yield inference_pb2.GenerateChunk(text=word)
        final = inference_pb2.GenerateResponse(answer="".join(_WORDS))
        yield inference_pb2.GenerateChunk(final=final)

    async def GetNodeStatus(
        self, request: inference_pb2.GetNodeStatusRequest, context: Any
    ) -> inference_pb2.NodeStatus:
        return inference_pb2.NodeStatus(node_id="node", base_model="none", most_rows=8)


def _add(server: grpc.aio.Server) -> str:
    node: Any = _Node  # What it lacks nobody asks of it.
    inference_pb2_grpc.add_InferenceServicer_to_server(node(), server)
    return inference_pb2.DESCRIPTOR.services_by_name["Inference"].full_name


def measure() -> list[results.Row]:
    """Median microseconds of each way, and what the fleet adds."""
    return asyncio.run(_measure())


async def _measure() -> list[results.Row]:
    server = rpc_server.Server([_add], "127.0.0.1:0")
    await server.start()
    address = f"127.0.0.1:{server.port}"
    settings = config.Settings(gateway=config.Gateway(nodes=(address,)))
    fleet = fleets.Fleet(settings, grpc_node.GrpcNode, _nothing_listed)
    node = grpc_node.GrpcNode(address)
    try:
        await fleet.start()
        whole = await _medians(
            lambda: node.whole(_QUESTION, _DEADLINE_S), lambda: fleet.answer(_QUESTION)
        )
        streamed = await _medians(
            lambda: _all(node.stream(_QUESTION, _DEADLINE_S)),
            lambda: _all(fleet.stream(_QUESTION)),
        )
    finally:
        await fleet.stop()
        await node.close()
        await server.stop()
    return [*_rows("whole", *whole), *_rows("streamed", *streamed)]


async def _medians(direct: Call, through: Call) -> tuple[float, float]:
    taken: list[list[float]] = [[], []]
    for number in range(_WARMING + _ROUNDS):
        ways = [(taken[0], direct), (taken[1], through)]
        # In turn forwards and backwards: whoever comes second finds warmer caches.
        for into, call in ways if number % 2 else reversed(ways):
            started = time.perf_counter()
            await call()
            into.append((time.perf_counter() - started) * 1e6)
    return statistics.median(taken[0][_WARMING:]), statistics.median(taken[1][_WARMING:])


def _rows(name: str, direct: float, through: float) -> list[results.Row]:
    return [
        results.Row(f"fleet_{name}_us", through, "µs", peer="the node", peer_value=direct),
        results.Row(f"fleet_adds_{name}_us", through - direct, "µs"),
    ]


async def _nothing_listed() -> Sequence[str]:
    return ()


async def _all(pieces: AsyncGenerator[domain.Piece, None]) -> None:
    async for _ in pieces:
        pass
