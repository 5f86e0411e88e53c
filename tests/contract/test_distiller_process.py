"""`python -m services.distiller`, killed and started again: what was spent is known, no key is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import yaml

from shared import errors
from shared.pb import distiller_pb2, distiller_pb2_grpc
from shared.rpc import client
from tests.contract import addresses, asked_teachers, serving, teacher_server

ROOT = pathlib.Path(__file__).parents[2]
PATIENCE_S = 120.0
"""Only a hanging test waits this long."""


def _configured(folder: pathlib.Path, teacher: str, **evolution: Any) -> str:
    (folder / "knowledge").mkdir()
    address = addresses.free_address()
    content = {
        "cluster": {"state_dir": str(folder / "state")},
        "router": {"address": addresses.free_address()},
        "distiller": {"address": address, "knowledge_dir": str(folder / "knowledge")},
        "discovery": {"zeroconf": False},
        "evolution": {"provider_type": "openai", "endpoint": f"{teacher}/v1", **evolution},
        "telemetry": {"log_level": "debug"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    return address


@contextlib.asynccontextmanager
async def _running(folder: pathlib.Path, address: str) -> AsyncIterator[Any]:
    """The process, until the block ends: then it is killed."""
    command = (sys.executable, "-m", "services.distiller", "--config", folder / "config.yaml")
    with (folder / "distiller.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            cwd=ROOT,
            env={**os.environ, "OPENAI_API_KEY": asked_teachers.KEY, "GRPC_VERBOSITY": "NONE"},
            stdout=log,
            stderr=log,
        )
    channel = grpc.aio.insecure_channel(
        address, options=(("grpc.max_reconnect_backoff_ms", 200), ("grpc.enable_retries", 0))
    )
    try:
        await serving.until_served(channel, process, PATIENCE_S)
        yield distiller_pb2_grpc.DistillerStub(channel)
    finally:
        await channel.close(None)
        process.kill()
        await process.wait()


async def _distil(stub: Any, task_id: str) -> None:
    async def nobody(update: Any) -> None:
        """Listens."""

    request = distiller_pb2.DistilRequest(task_id=task_id, queries=["How long is it?"])
    await client.last_of_stream(stub.Distil, request, nobody, PATIENCE_S)


async def test_costs_are_known_and_keys_are_not_when_the_distiller_was_killed(
    tmp_path: pathlib.Path,
) -> None:
    key = asked_teachers.KEY
    refused = teacher_server.Step(refusal=f"Not with {key}.", usage=(200, 6))
    barred = teacher_server.Step(status=401, message=f"Incorrect API key provided: {key}")
    async with teacher_server.TeacherServer(refused, barred) as server:
        address = _configured(tmp_path, server.root, rates={"gpt-4.1": {"input": 2, "output": 8}})
        task = distiller_pb2.GetSpendingRequest(task_id="t1")
        async with _running(tmp_path, address) as stub:
            with pytest.raises(errors.TeacherError, match=r"Not with \[key\]"):
                await _distil(stub, "t1")
            before = await stub.GetSpending(task)
        assert (before.calls, before.tokens_in, before.tokens_out) == (1, 200, 6)
        assert before.dollars == pytest.approx(0.000448)
        async with _running(tmp_path, address) as stub:
            assert await stub.GetSpending(task) == before
            with pytest.raises(errors.TeacherError, match=r"Not with \[key\]"):
                await _distil(stub, "t1")
            assert len(server.seen) == 1
            with pytest.raises(errors.TeacherError, match=r"does not accept.*\[key\]"):
                await _distil(stub, "t2")
            status = await stub.GetDistillerStatus(distiller_pb2.GetDistillerStatusRequest())
        assert server.seen[1].headers["authorization"] == f"Bearer {key}"
    assert (status.teachers[0].name, status.teachers[0].circuit) == ("openai:gpt-4.1", "open")
    assert status.today == before
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"distiller.log", "spending.sqlite"} <= {path.name for path in written}
    assert "[key]" in (tmp_path / "distiller.log").read_text()
    assert [path for path in written if key.encode() in path.read_bytes()] == []


async def test_task_fails_with_the_key_to_raise_when_the_budget_is_too_small(
    tmp_path: pathlib.Path,
) -> None:
    async with teacher_server.TeacherServer(asked_teachers.GOOD) as server:
        address = _configured(tmp_path, server.root, budget={"task_tokens": 100})
        async with _running(tmp_path, address) as stub:
            with pytest.raises(errors.BudgetError, match=r"raise evolution\.budget\.task_tokens"):
                await _distil(stub, "t1")
    assert server.seen == []
