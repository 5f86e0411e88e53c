"""`python -m benchmarks.gateway overhead`: what gateway, router and gRPC add to the bare engine.

Router, node and gateway are processes of their own with the embedded base model; the bare engine
runs in this process. One request of a few tokens at a time, each question by every way in turn, so
that a machine that slows down weighs on all of them. The router embeds every question: how long
that takes is measured by itself in this process, and taken off.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

from benchmarks import results
from benchmarks.gateway import processes, streams
from services.gateway import domain
from services.gateway.calls import peers
from services.inference import engine as engines
from shared import settings as config
from shared.models import base as bases
from shared.models import embedder as embedders

LIMIT_S = 90.0
"""So long rounds go on, a start of half a minute apart."""
_LEAST_ROUNDS, _MOST_ROUNDS, _WARMING, _TOKENS = 10, 150, 5, 6
_DEADLINE_S = 60.0
_STARTED = ("router", "inference", "gateway")
ENGINE, EMBEDDING, ROUTER = "engine", "embedding", "router"
NODE_BASE, NODE_AUTO = "node_base", "node_auto"
GATEWAY_BASE, GATEWAY_AUTO = "gateway_base", "gateway_auto"
Ask = Callable[[str], Awaitable[object]]


def measure(limit_s: float = LIMIT_S) -> list[results.Row]:
    """Median milliseconds of one request by each way, and what is added to the engine.

    Args:
        limit_s: for the rounds.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        settings = processes.alone(folder, _TOKENS)
        with processes.services(settings, _STARTED, folder):
            took = asyncio.run(_measured(settings, limit_s))
    rounds, load = len(took[ENGINE]), os.getloadavg()[0]
    note = f"median of {rounds} requests of at most {_TOKENS} tokens, load {load:.0f}"
    return rows(took, note)


def rows(took: Mapping[str, Sequence[float]], note: str) -> list[results.Row]:
    """The figures out of milliseconds by way, one a round: each difference is of one round."""

    def added(whole: str, *parts: str) -> float:
        each = zip(took[whole], *(took[part] for part in parts), strict=True)
        return float(statistics.median(of_whole - sum(of_parts) for of_whole, *of_parts in each))

    found = [
        results.Row(f"{name}_ms", statistics.median(times), "ms", note=note)
        for name, times in took.items()
    ]
    differences = {
        "node_adds_ms": added(NODE_BASE, ENGINE),
        "gateway_adds_ms": added(GATEWAY_BASE, NODE_BASE),
        "router_adds_ms": added(ROUTER, EMBEDDING),
        "routing_adds_ms": added(NODE_AUTO, NODE_BASE, EMBEDDING),
    }
    found += [results.Row(name, value, "ms", note=note) for name, value in differences.items()]
    overhead = added(GATEWAY_AUTO, ENGINE, EMBEDDING)
    return [*found, results.Row("overhead_ms", overhead, "ms", most=10, note=note)]


async def _measured(settings: config.Settings, limit_s: float) -> dict[str, list[float]]:
    embedder = embedders.Embedder()
    engine = engines.ArrowEngine(bases.load(settings.model.base), settings.inference)
    engine.start()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(engine.stop)
        services = await stack.enter_async_context(peers.connected(settings))
        http = await stack.enter_async_context(_connected(settings.gateway.address))

        def node(model: str) -> Ask:
            def ask(question: str) -> Awaitable[object]:
                asked = domain.Conversation(
                    (domain.Message("user", question),), model, no_learning=True
                )
                return services.inference.whole(asked, _DEADLINE_S)

            return ask

        def gateway(model: str) -> Ask:
            return lambda question: http(
                json.dumps(streams.body(model, question, _TOKENS, no_learning=True)).encode()
            )

        ways: dict[str, Ask] = {
            ENGINE: lambda question: engine.generate(question, max_new_tokens=_TOKENS),
            EMBEDDING: lambda question: asyncio.to_thread(embedder.embed, [question]),
            ROUTER: lambda question: services.router.route(question, True, "", _DEADLINE_S),
            NODE_BASE: node("base"),
            NODE_AUTO: node("auto"),
            GATEWAY_BASE: gateway("base"),
            GATEWAY_AUTO: gateway("auto"),
        }
        took: dict[str, list[float]] = {name: [] for name in ways}
        until_s, at = time.monotonic() + limit_s, 0
        while at < _WARMING + _MOST_ROUNDS:
            if at >= _WARMING + _LEAST_ROUNDS and time.monotonic() > until_s:
                break
            for place, (name, ask) in enumerate(ways.items()):
                # As long as each other, and none twice: the router keeps what it has embedded.
                question = f"Who built the lighthouse number {at * 10 + place + 1000}?"
                began_s = time.perf_counter()
                await ask(question)
                if at >= _WARMING:
                    took[name].append((time.perf_counter() - began_s) * 1000)
            at += 1
    return took


@contextlib.asynccontextmanager
async def _connected(address: str) -> AsyncIterator[Callable[[bytes], Awaitable[object]]]:
    """A connection that is kept, without what a client library would add."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))

    async def ask(body: bytes) -> object:
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        told = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        size = int(told.split("content-length: ")[1].split("\r\n")[0])
        answer = json.loads(await reader.readexactly(size))
        if "choices" not in answer:
            raise RuntimeError(f"the gateway answered {answer}")
        return answer

    try:
        yield ask
    finally:
        writer.close()
        await writer.wait_closed()
