"""A stream on which nothing is said for long stays open, however often the client pings."""

from __future__ import annotations

import asyncio

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shared.rpc import client
from shared.rpc import server as rpc_server


async def test_stream_stays_open_when_the_client_pings_on_it():
    server = rpc_server.Server([], "127.0.0.1:0")
    await server.start()
    try:
        async with client.channel(f"127.0.0.1:{server.port}", keepalive_ms=1000) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            stream = stub.Watch(health_pb2.HealthCheckRequest(service=""))
            await stream.read()
            # A server that counts pings hangs up at the third.
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(6):
                    await stream.read()
    finally:
        await server.stop()
