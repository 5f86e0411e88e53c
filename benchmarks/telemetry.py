"""What measuring and tracing cost a request: `python -m benchmarks.telemetry`.

Everything is measured in turns within one run, in processor time of this process (client, server
and model are in it), so that the ratios hold on a busy machine, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import torch
from opentelemetry import trace

from services.inference import engine, metered, metrics
from shared import settings as config
from shared.models import base as bases
from shared.pb import inference_pb2, inference_pb2_grpc
from shared.rpc import access, client
from shared.rpc import server as rpc_server
from shared.security import callers
from shared.telemetry import calls, exporting

_ROUNDS, _CALLS, _ANSWERS = 9, 150, 4
_QUESTION = "What is a skill card, and what is it good for?"


async def _yes(request: Any, context: Any) -> inference_pb2.GenerateResponse:
    return inference_pb2.GenerateResponse(answer="yes")


@contextlib.asynccontextmanager
async def _stub(measured: bool) -> AsyncIterator[Any]:
    known = [rpc_server.ErrorInterceptor(), access.AccessInterceptor(callers.Callers())]
    interceptors = [calls.CallInterceptor(), *known] if measured else known
    server = grpc.aio.server(interceptors=interceptors)
    generate = grpc.unary_unary_rpc_method_handler(
        _yes,
        inference_pb2.GenerateRequest.FromString,
        inference_pb2.GenerateResponse.SerializeToString,
    )
    handlers = grpc.method_handlers_generic_handler(
        "skillmesh.v1.Inference", {"Generate": generate}
    )
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with client.channel(f"127.0.0.1:{port}") as channel:
        yield inference_pb2_grpc.InferenceStub(channel)
    await server.stop(0)


async def _calls(stub: Any) -> float:
    """Microseconds of processor time a call, one after the other."""
    request = inference_pb2.GenerateRequest(query="any")
    began = time.process_time()
    for _ in range(_CALLS):
        await stub.Generate(request)
    return (time.process_time() - began) / _CALLS * 1e6


async def _answers(node: engine.ArrowEngine) -> float:
    """Tokens per second of several answers at once."""
    began = time.process_time()
    found = await asyncio.gather(
        *[node.generate(_QUESTION, max_new_tokens=64) for _ in range(_ANSWERS)]
    )
    return sum(one.new_tokens for one in found) / (time.process_time() - began)


async def _in_turns(
    measure: Callable[[Any], Awaitable[float]], first: Any, second: Any
) -> tuple[float, float, float]:
    """Medians of both, and the median ratio of the second to the first."""
    pairs = []
    for at in range(_ROUNDS + 1):
        order = (first, second) if at % 2 else (second, first)
        found = {id(one): await measure(one) for one in order}
        pairs.append((found[id(first)], found[id(second)]))
    pairs = pairs[1:]  # The first round warms up.
    ratio = statistics.median(b / a for a, b in pairs)
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), ratio


def _tell(what: str, bare: float, other: float, how: str, ratio: float) -> None:
    print(f"{what}, of processor time: {bare:.0f} bare, {other:.0f} {how}: x{ratio:.3f}")


async def run(folder: pathlib.Path) -> None:
    """Measures and prints; spans go to the folder."""
    torch.set_num_threads(1)
    base = bases.load("embedded")
    settings = config.Inference(threads=1)
    plain = engine.ArrowEngine(base, settings)
    told = metered.MeteredEngine(bases.load("embedded"), settings, metrics.Answers().observe)
    for node in (plain, told):
        node.start()
    bare_tps, measured_tps, ratio = await _in_turns(_answers, plain, told)
    _tell("generation, tokens/s", bare_tps, measured_tps, "measured", ratio)
    for node in (plain, told):
        await node.stop()
    async with _stub(False) as bare, _stub(True) as measured:
        bare_us, measured_us, ratio = await _in_turns(_calls, bare, measured)
        _tell("gRPC call, us", bare_us, measured_us, "measured", ratio)
        provider = exporting.provider(
            exporting.FileExporter(folder / "spans.jsonl"), "bench", "bench"
        )
        trace.set_tracer_provider(provider)
        bare_us, traced_us, ratio = await _in_turns(_calls, bare, measured)
        _tell("gRPC call, us", bare_us, traced_us, "traced", ratio)
        provider.shutdown()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(run(pathlib.Path(name)))
