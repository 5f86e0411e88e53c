"""A router over loopback, and the addresses of the peers that a test gives it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from services.router import embedding, practice, server
from shared import discovery, errors
from shared import settings as config
from shared.pb import router_pb2, router_pb2_grpc
from shared.rpc import client
from tests import fake_router_peers as peers
from tests import fake_routers, fakes
from tests.contract import addresses

HANGING_S = 180.0
"""Nothing here waits for long: a test that hangs fails."""


async def tried(
    stub: router_pb2_grpc.RouterStub, request: router_pb2.TryCardRequest
) -> router_pb2.TryCardResponse:
    """What TryCard answers once the router has read the store."""
    while True:
        try:
            return await client.call(stub.TryCard, request)
        except errors.UnavailableError:
            await asyncio.sleep(0.02)


def practise_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives routers what `practice.prepare` made with the fake embedder, once for all of them.

    It is most of what a start takes. The tests of bad input and of warm starts practise anew.
    """
    ground = fake_routers.ground()

    async def prepared(*_: object) -> practice.Practice:
        return ground

    monkeypatch.setattr(practice, "prepare", prepared)


async def route(stub: router_pb2_grpc.RouterStub, query: str, **more: Any) -> Any:
    """Which card the router finds for a question."""
    return await client.call(stub.Route, router_pb2.RouteRequest(query=query, **more))


async def status(stub: router_pb2_grpc.RouterStub) -> router_pb2.RouterStatus:
    """What the router says of itself."""
    return await client.call(stub.GetRouterStatus, router_pb2.GetRouterStatusRequest())


async def until(
    stub: router_pb2_grpc.RouterStub, holds: Callable[[router_pb2.RouterStatus], bool]
) -> router_pb2.RouterStatus:
    """Asks for the status, one answer after the other, until it is as awaited."""
    while not holds(found := await status(stub)):
        await asyncio.sleep(0)
    return found


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Asks, one answer after the other, until it is so."""
    while not await holds():
        await asyncio.sleep(0)


class Cluster:
    """Settings and addresses of one test; peers come and go."""

    def __init__(self, state_dir: Any) -> None:
        self.state_dir = state_dir
        self.factory_address = addresses.free_address()
        self.store_address = addresses.free_address()
        self.load_model: Callable[[], embedding.TextModel] = peers.HashingEmbedder
        self.queue = 16
        self.router_options: dict[str, Any] = {}
        self.silence_s = 20.0
        self.list_every_s = 60.0

    def settings(self, address: str = "127.0.0.1:0") -> config.Settings:
        fakes.keyring(self.state_dir)
        return config.Settings(
            cluster=config.Cluster(state_dir=self.state_dir),
            router=config.Router(address=address, event_queue=self.queue, **self.router_options),
            factory=config.Factory(address=self.factory_address),
            discovery=config.Discovery(list_every_s=self.list_every_s),
        )

    @contextlib.asynccontextmanager
    async def router(self) -> AsyncIterator[router_pb2_grpc.RouterStub]:
        async def find() -> list[discovery.StoreAddress]:
            return [discovery.StoreAddress("store", self.store_address)]

        async with (
            asyncio.timeout(HANGING_S),
            server.running(self.settings(), self.load_model, find, self.silence_s) as port,
            client.channel(f"127.0.0.1:{port}") as channel,
        ):
            yield router_pb2_grpc.RouterStub(channel)
