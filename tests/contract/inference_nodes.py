"""Real inference nodes on the tiny model, with a fake router, and what a test asks of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc

from services.inference import server
from shared import discovery
from shared import settings as config
from shared.cards import card as cards
from shared.cards import format as formats
from shared.cards import manifest as manifests
from shared.cards import signature
from shared.flight import client as flight_client
from shared.lora import manager as managers
from shared.pb import (
    cards_pb2,
    cards_pb2_grpc,
    inference_pb2,
    inference_pb2_grpc,
    router_pb2,
    router_pb2_grpc,
    types_pb2,
)
from shared.rpc import client
from shared.rpc import server as rpc_server
from tests import fake_router_peers, fakes, tiny_model
from tests.contract.card_store_processes import Store

QUERY, TOKENS = "Who built it?", 16
HANGING_S = 180.0
"""Nothing here waits for long: a test that hangs fails."""


class FakeRouter(router_pb2_grpc.RouterServicer):
    """Answers what it was told to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.response = router_pb2.RouteResponse(
            none_probability=1, dissonance=True, event_id="event-1"
        )
        self.asked: list[router_pb2.RouteRequest] = []
        self.reports: asyncio.Queue[router_pb2.ReportAnswerRequest] = asyncio.Queue()

    def choose(self, *keys: str) -> None:
        self.response = router_pb2.RouteResponse(
            candidates=[router_pb2.RouteCandidate(card=key, probability=0.9) for key in keys],
            none_probability=0.1,
            confidence=0.9,
        )

    async def Route(
        self, request: router_pb2.RouteRequest, context: Any
    ) -> router_pb2.RouteResponse:
        self.asked.append(request)
        return self.response

    async def ReportAnswer(
        self, request: router_pb2.ReportAnswerRequest, context: Any
    ) -> router_pb2.ReportAnswerResponse:
        await self.reports.put(request)
        return router_pb2.ReportAnswerResponse()

    async def Embed(
        self, request: router_pb2.EmbedRequest, context: Any
    ) -> router_pb2.EmbedResponse:
        vectors = fake_router_peers.HashingEmbedder().embed(request.texts)
        return router_pb2.EmbedResponse(
            dimension=vectors.shape[1], vectors=vectors.astype("<f4").tobytes()
        )


class Node:
    """A running node with what a test asks of it."""

    def __init__(self, stub: Any, router: FakeRouter, port: int) -> None:
        self.stub, self.router, self.port = stub, router, port

    async def ask(self, query: str = QUERY, **more: Any) -> inference_pb2.GenerateResponse:
        request = inference_pb2.GenerateRequest(query=query, **more)
        return await client.call(self.stub.Generate, request, HANGING_S)

    async def status(self) -> inference_pb2.NodeStatus:
        return await client.call(self.stub.GetNodeStatus, inference_pb2.GetNodeStatusRequest())

    async def until_served_is(self, *keys: str) -> inference_pb2.NodeStatus:
        """Asks for the status until exactly these may be chosen."""
        while set((status := await self.status()).served) != set(keys):
            pass
        return status

    async def until_swapped_to(self, key: str) -> inference_pb2.NodeStatus:
        """Asks for the status until this is the only version of its card and its swap is told."""
        name = key.partition("@")[0]
        while True:
            status = await self.status()
            versions = [one for one in status.served if one.startswith(f"{name}@")]
            if versions == [key] and key in [swap.card for swap in status.swaps]:
                return status


@contextlib.asynccontextmanager
async def router_server(fake: FakeRouter) -> AsyncIterator[str]:
    def add(grpc_server: grpc.aio.Server) -> str:
        router_pb2_grpc.add_RouterServicer_to_server(fake, grpc_server)
        return router_pb2.DESCRIPTOR.services_by_name["Router"].full_name

    running = rpc_server.Server([add], "127.0.0.1:0")
    await running.start()
    try:
        yield f"127.0.0.1:{running.port}"
    finally:
        await running.stop()


def settings_for(
    state_dir: Any, router: str, address: str = "127.0.0.1:0", **more: Any
) -> config.Settings:
    fakes.keyring(state_dir)
    return config.Settings(
        cluster=config.Cluster(state_dir=state_dir),
        router=config.Router(address=router),
        inference=config.Inference(address=address, max_new_tokens=TOKENS, **more),
    )


@contextlib.asynccontextmanager
async def running(
    state_dir: Any, stores: list[str], router_address: str | None = None, **more: Any
) -> AsyncIterator[Node]:
    """A node; `stores` may be changed by the test while it looks for one."""

    async def find() -> list[discovery.StoreAddress]:
        return [discovery.StoreAddress(store, store) for store in stores]

    fake = FakeRouter()
    async with asyncio.timeout(HANGING_S), router_server(fake) as address:
        settings = settings_for(state_dir, router_address or address, **more)
        async with (
            server.running(settings, lambda _: tiny_model.tiny_base(0), find) as port,
            client.channel(f"127.0.0.1:{port}") as channel,
        ):
            yield Node(inference_pb2_grpc.InferenceStub(channel), fake, port)


def control(store: Store) -> str:
    return f"127.0.0.1:{store.control.port}"


async def publish(
    store: Store,
    card: cards.LoRACard,
    by: signature.Signer | None = None,
    tenants: Sequence[str] = (),
) -> str:
    """Uploads and commits a card, everybody's by default; returns `name@digest`."""
    flight = flight_client.LoRAFlightClient(store.flight_address)
    try:
        data = formats.LoRAFormat.to_bytes(card)
        digest = await asyncio.to_thread(flight.put, "card", data)
    finally:
        flight.close()
    async with client.channel(control(store)) as channel:
        stub: Any = cards_pb2_grpc.CardStoreStub(channel)
        request = cards_pb2.CommitRequest(
            idempotency_key=digest,
            ticket=types_pb2.Ticket(kind="card", digest=digest),
            signature_json=fakes.envelope(card, digest, by),
            tenants=tenants,
        )
        await client.call(stub.Commit, request)
    return manifests.card_identity(card.name, digest)


def expected_of(card: cards.LoRACard | None, query: str = QUERY, tokens: int = TOKENS) -> str:
    """What transformers generates, on a model of its own."""
    base = tiny_model.tiny_base(0)
    if card is not None:
        manager = managers.LoRAManager(base.model)
        manager.apply_card(card, "card")
        manager.activate("card")
    return tiny_model.reference_text(base, query, tokens)
