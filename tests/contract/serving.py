"""Waiting until a process that a test started serves."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

_PAUSE_S = 0.05


async def until_served(
    channel: grpc.aio.Channel, process: asyncio.subprocess.Process, patience_s: float
) -> None:
    """Asks for its health until it answers.

    Under `wait_for_ready` a call still fails where the connection that it was sent on breaks; then
    it is sent again, as long as the process lives.

    Raises:
        AssertionError: the process ended, or served nothing in time.
    """
    health: Any = health_pb2_grpc.HealthStub(channel)
    deadline = time.monotonic() + patience_s
    while True:
        left = deadline - time.monotonic()
        try:
            await health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=left)
            return
        except grpc.aio.AioRpcError as error:
            assert process.returncode is None, f"ended with {process.returncode} before it served"
            is_broken = error.code() is grpc.StatusCode.UNAVAILABLE
            assert is_broken and left > 0, f"served nothing in {patience_s} s: {error.details()}"
        await asyncio.sleep(_PAUSE_S)
