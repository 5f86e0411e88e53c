"""`python -m services.factory` as the tests start, kill and ask it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import signal
import sys
import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

import grpc
import yaml

from shared.pb import factory_pb2, factory_pb2_grpc, types_pb2
from shared.security import callers
from tests import fake_services
from tests.contract import addresses, serving

T = TypeVar("T")

ROOT = pathlib.Path(__file__).parents[2]
PATIENCE_S = 120
"""Only a hanging test waits this long."""
QUESTION, ANSWER = "What does Zorblax trade?", "blue salt"


class FactoryProcess:
    """`python -m services.factory` with its state in one folder."""

    def __init__(
        self,
        folder: pathlib.Path,
        others: fake_services.FakeServices,
        router_address: str = "",
        trainers: Sequence[str] = (),
        through: Sequence[str] = (),
        security: Mapping[str, str] | None = None,
        **options: Any,
    ):
        self.address = addresses.free_address()
        self._log = folder / "factory.log"
        self._config = folder / "config.yaml"
        self._module = (*through, "services.factory")
        content = {
            "cluster": {"state_dir": str(folder / "state")},
            "factory": {"address": self.address, "gather_s": 0.1, **options},
            "router": {"address": router_address or addresses.free_address()},
            "distiller": {"address": others.address("distiller")},
            "trainer": {"address": others.address("trainer"), "addresses": list(trainers)},
            "inference": {"address": others.address("inference")},
            "security": dict(security or {}),
            "discovery": {"zeroconf": False, "stores": [others.address("store")]},
        }
        self._config.write_text(yaml.safe_dump(content))
        self._process: asyncio.subprocess.Process | None = None
        self.channel = grpc.aio.insecure_channel(
            self.address,
            options=(("grpc.max_reconnect_backoff_ms", 200), ("grpc.enable_retries", 0)),
        )
        self.stub: Any = factory_pb2_grpc.FactoryStub(self.channel)

    async def start(self) -> None:
        self._process = await self._spawn()
        await serving.until_served(self.channel, self._process, PATIENCE_S)

    async def kill(self) -> None:
        await self._end(signal.SIGKILL)

    async def terminate(self) -> int:
        return await self._end(signal.SIGTERM)

    async def close(self) -> None:
        if self._process is not None:
            await self.kill()
        await self.channel.close(None)

    async def second_one(self) -> tuple[int, str]:
        """Starts another one with the same configuration; its exit code and words."""
        process = await self._spawn(stderr=asyncio.subprocess.PIPE)
        _, stderr = await within(process.communicate())
        assert process.returncode is not None
        return process.returncode, stderr.decode()

    def log(self) -> str:
        return self._log.read_text()

    async def report(
        self, query: str, event_id: str, **more: Any
    ) -> factory_pb2.ReportDissonanceResponse:
        event = factory_pb2.CognitiveDissonance(
            event_id=event_id,
            query=query,
            confidence=0.1,
            detected_at_ms=time.time_ns() // 1_000_000,
            **more,
        )
        response: factory_pb2.ReportDissonanceResponse
        response = await self.stub.ReportDissonance(event, timeout=PATIENCE_S)
        return response

    async def watched(self, task_id: str) -> list[types_pb2.TrainingTask]:
        request = factory_pb2.WatchTaskRequest(id=task_id)
        return [task async for task in self.stub.WatchTask(request, timeout=PATIENCE_S)]

    async def ended(self, task_id: str) -> types_pb2.TrainingTask:
        return (await self.watched(task_id))[-1]

    async def _spawn(self, **streams: Any) -> asyncio.subprocess.Process:
        with self._log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *self._module,
                "--config",
                str(self._config),
                cwd=ROOT,
                env={**os.environ, "GRPC_VERBOSITY": "NONE"},
                **{"stderr": log, **streams},
            )

    async def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        assert process is not None
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        return await within(process.wait())


def guarded(
    folder: pathlib.Path,
    others: fake_services.FakeServices,
    tokens: Sequence[tuple[str, str, Sequence[str]]],
) -> FactoryProcess:
    """One that wants tokens, each its holder's name; it shows that of `olga` itself.

    Args:
        folder: of its state.
        others: the services that it asks.
        tokens: name, role and tenants.
    """
    told = [
        {"name": name, "sha256": callers.hash_of(name), "role": role, "tenants": list(tenants)}
        for name, role, tenants in tokens
    ]
    path, own = folder / "tokens.json", folder / "olga.token"
    path.write_text(json.dumps(told))
    own.write_text("olga")
    own.chmod(0o600)
    return FactoryProcess(folder, others, security={"tokens": str(path), "token_file": str(own)})


def shown(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call with a token; none for an empty one."""
    return (("authorization", callers.header(token)),) if token else ()


async def within(awaited: Awaitable[T]) -> T:
    return await asyncio.wait_for(awaited, PATIENCE_S)


def status(task: types_pb2.TrainingTask) -> str:
    return types_pb2.TaskStatus.Name(task.status)
