"""`python -m benchmarks.gateway.overhead`: what gateway, router and gRPC add to the bare engine.

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
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from benchmarks import results
from services.gateway.calls import peers
from services.gateway.cluster import health, programs
from services.inference import engine as engines
from shared import settings as config
from shared.models import base as bases
from shared.models import embedder as embedders

_ROUNDS, _WARMING, _TOKENS = 150, 10, 6
_STARTED = ("router", "inference", "gateway")
_START_S, _STOP_S = 600.0, 60.0
_MODULES = {
    "router": "services.router",
    "inference": "services.inference",
    "gateway": "services.gateway.web",
}
Ask = Callable[[str], Awaitable[object]]


def measure() -> list[results.Row]:
    """Median milliseconds of one request by each way, and what is added to the engine."""
    with tempfile.TemporaryDirectory() as folder:
        settings = _settings(pathlib.Path(folder))
        with _processes(settings, pathlib.Path(folder)):
            took = asyncio.run(_measured(settings))
    medians = {name: statistics.median(times) for name, times in took.items()}
    added = [
        whole - engine - embedding
        for whole, engine, embedding in zip(
            took["gateway, auto"], took["engine"], took["embedding"], strict=True
        )
    ]
    note = (
        f"median of {_ROUNDS} requests of at most {_TOKENS} tokens, load {os.getloadavg()[0]:.0f}"
    )
    rows = [results.Row(f"{name}_ms", value, "ms", note=note) for name, value in medians.items()]
    overhead = statistics.median(added)
    return [*rows, results.Row("gateway_overhead_ms", overhead, "ms", most=10, note=note)]


async def _measured(settings: config.Settings) -> dict[str, list[float]]:
    embedder = embedders.Embedder()
    engine = engines.ArrowEngine(bases.load(settings.model.base), settings.inference)
    engine.start()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(engine.stop)
        services = await stack.enter_async_context(peers.connected(settings))
        http = await stack.enter_async_context(_connected(settings.gateway.address))

        async def embed(question: str) -> object:
            return await asyncio.to_thread(embedder.embed, [question])

        ways: dict[str, Ask] = {
            "engine": lambda question: engine.generate(question, max_new_tokens=_TOKENS),
            "embedding": embed,
            "node, base": lambda question: services.inference.ask(question, True, "base"),
            "gateway, base": lambda question: http(_body("base", question)),
            "gateway, auto": lambda question: http(_body("auto", question)),
        }
        took: dict[str, list[float]] = {name: [] for name in ways}
        for at in range(_WARMING + _ROUNDS):
            question = f"Who built the lighthouse number {at}?"
            for name, ask in ways.items():
                began_s = time.perf_counter()
                await ask(question)
                if at >= _WARMING:
                    took[name].append((time.perf_counter() - began_s) * 1000)
    return took


def _body(model: str, question: str) -> bytes:
    asked = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": _TOKENS,
        "no_learning": True,
    }
    return json.dumps(asked).encode()


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


def _settings(folder: pathlib.Path) -> config.Settings:
    free = programs.on_free_ports(config.Settings())
    inference = free.inference.model_copy(update={"max_new_tokens": _TOKENS})
    return free.model_copy(
        update={
            "cluster": config.Cluster(state_dir=folder),
            "inference": inference,
            "discovery": config.Discovery(zeroconf=False),
        }
    )


@contextlib.contextmanager
def _processes(settings: config.Settings, folder: pathlib.Path) -> Iterator[None]:
    path = folder / "config.yaml"
    path.write_text(settings.model_dump_json())
    environment = os.environ | {"OMP_NUM_THREADS": "1", config.CONFIG_VARIABLE: str(path)}
    log = (folder / "log").open("wb")
    started = [
        subprocess.Popen(
            [sys.executable, "-m", _MODULES[name]],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        for name in _STARTED
    ]
    try:
        wanted = [one for one in programs.of(settings) if one.name in _STARTED]
        deadline_s = time.monotonic() + _START_S
        while len(health.healthy(wanted)) < len(wanted):
            if time.monotonic() > deadline_s or any(one.poll() is not None for one in started):
                raise RuntimeError((folder / "log").read_text(errors="replace")[-4000:])
            time.sleep(0.2)
        yield
    finally:
        for one in started:
            one.terminate()
        for one in started:
            one.wait(_STOP_S)
        log.close()


if __name__ == "__main__":
    results.print_rows("gateway", measure())
