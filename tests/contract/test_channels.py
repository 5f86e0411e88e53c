"""Channels to services that stop and come back."""

from __future__ import annotations

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shared import errors
from shared.rpc import client, server
from tests.contract import addresses


async def _check(channel) -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    reply = await client.call(stub.Check, health_pb2.HealthCheckRequest())
    return reply.status


async def test_new_channel_connects_when_another_was_refused_a_moment_ago():
    address = addresses.free_address()
    async with client.channel(address) as early:
        with pytest.raises(errors.UnavailableError, match="refused"):
            await _check(early)
        service = server.Server([], address)
        await service.start()
        async with client.channel(address) as late:
            assert await _check(late) == health_pb2.HealthCheckResponse.SERVING
        await service.stop()
