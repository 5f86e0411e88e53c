"""The inference node over loopback: a fake router, and a card store of two real processes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from services.inference import answering, server
from services.inference import engine as engines
from shared import discovery, errors
from shared import settings as config
from shared.cards import card as cards
from shared.cards import format as formats
from shared.cards import manifest as manifests
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
from tests import fakes, tiny_model
from tests.contract.card_store_processes import Store

QUERY, TOKENS = "Who built it?", 16
_HANGING_S = 90.0
"""Nothing here waits for long: a test that hangs fails."""


class FakeRouter(router_pb2_grpc.RouterServicer):
    """Answers what it was told to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.response = router_pb2.RouteResponse(
            none_probability=1, dissonance=True, event_id="event-1"
        )
        self.asked: list[router_pb2.RouteRequest] = []

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


class _Node:
    """A running node with what a test asks of it."""

    def __init__(self, stub: Any, router: FakeRouter, port: int) -> None:
        self.stub, self.router, self.port = stub, router, port

    async def ask(self, query: str = QUERY, **more: Any) -> inference_pb2.GenerateResponse:
        request = inference_pb2.GenerateRequest(query=query, **more)
        return await client.call(self.stub.Generate, request, _HANGING_S)

    async def status(self) -> inference_pb2.NodeStatus:
        return await client.call(self.stub.GetNodeStatus, inference_pb2.GetNodeStatusRequest())

    async def until_swapped_to(self, key: str) -> inference_pb2.NodeStatus:
        """Asks for the status until this is the only version of its card and its swap is told."""
        name = key.partition("@")[0]
        while True:
            status = await self.status()
            versions = [one for one in status.served if one.startswith(f"{name}@")]
            if versions == [key] and key in [swap.card for swap in status.swaps]:
                return status


@contextlib.asynccontextmanager
async def _router(fake: FakeRouter) -> AsyncIterator[str]:
    def add(grpc_server: grpc.aio.Server) -> str:
        router_pb2_grpc.add_RouterServicer_to_server(fake, grpc_server)
        return router_pb2.DESCRIPTOR.services_by_name["Router"].full_name

    running = rpc_server.Server([add], "127.0.0.1:0")
    await running.start()
    try:
        yield f"127.0.0.1:{running.port}"
    finally:
        await running.stop()


def _free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def _settings(
    state_dir: Any, router: str, address: str = "127.0.0.1:0", **more: Any
) -> config.Settings:
    fakes.keyring(state_dir)
    return config.Settings(
        cluster=config.Cluster(state_dir=state_dir),
        router=config.Router(address=router),
        inference=config.Inference(address=address, max_new_tokens=TOKENS, **more),
    )


@contextlib.asynccontextmanager
async def _running(
    state_dir: Any, stores: list[str], router_address: str | None = None, **more: Any
) -> AsyncIterator[_Node]:
    """A node; `stores` may be changed by the test while it looks for one."""

    async def find() -> list[discovery.StoreAddress]:
        return [discovery.StoreAddress(store, store) for store in stores]

    fake = FakeRouter()
    async with asyncio.timeout(_HANGING_S), _router(fake) as address:
        settings = _settings(state_dir, router_address or address, **more)
        async with (
            server.running(settings, lambda _: tiny_model.tiny_base(0), find) as port,
            client.channel(f"127.0.0.1:{port}") as channel,
        ):
            yield _Node(inference_pb2_grpc.InferenceStub(channel), fake, port)


@pytest.fixture
async def node(tmp_path) -> AsyncIterator[_Node]:
    """A node without a store."""
    async with _running(tmp_path, []) as running:
        yield running


@pytest.fixture(scope="module")
def base():
    return tiny_model.tiny_base(0)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Iterator[Store]:
    opened = Store(tmp_path_factory.mktemp("store"))
    yield opened
    opened.stop()


def _control(store: Store) -> str:
    return f"127.0.0.1:{store.control.port}"


async def _publish(store: Store, card: cards.LoRACard) -> str:
    """Uploads and commits a card; returns `name@digest`."""
    flight = flight_client.LoRAFlightClient(store.flight_address)
    try:
        data = formats.LoRAFormat.to_bytes(card)
        digest = await asyncio.to_thread(flight.put, "card", data)
    finally:
        flight.close()
    async with client.channel(_control(store)) as channel:
        stub: Any = cards_pb2_grpc.CardStoreStub(channel)
        request = cards_pb2.CommitRequest(
            idempotency_key=digest,
            ticket=types_pb2.Ticket(kind="card", digest=digest),
            signature_json=fakes.envelope(card, digest),
        )
        await client.call(stub.Commit, request)
    return manifests.card_identity(card.name, digest)


def _expected(card: cards.LoRACard | None, query: str = QUERY) -> str:
    """What transformers generates, on a model of its own."""
    base = tiny_model.tiny_base(0)
    if card is not None:
        manager = managers.LoRAManager(base.model)
        manager.apply_card(card, "card")
        manager.activate("card")
    return tiny_model.reference_text(base, query, TOKENS)


async def test_base_answers_when_there_is_no_card(node):
    found = await node.ask(no_learning=True)
    assert found.answer == _expected(None)
    assert (found.card, found.dissonance, found.event_id) == ("", True, "event-1")
    assert found.new_tokens == TOKENS and found.prompt_tokens > 0
    [asked] = node.router.asked
    assert asked.query == QUERY and asked.no_learning


async def test_user_is_answered_when_router_and_store_are_away(tmp_path):
    async with _running(tmp_path, [_free_address()], _free_address()) as node:
        found = await node.ask()
        assert found.answer == _expected(None)
        assert (found.card, found.confidence, found.dissonance) == ("", 0.0, False)
        status = await node.status()
        assert not status.store_connected and status.revision == 0 and status.node_id
        assert (status.base_model, status.resident) == ("tiny", [])


async def test_chunks_add_up_to_the_answer_when_it_is_streamed(node):
    unary = await node.ask()
    request = inference_pb2.GenerateRequest(query=QUERY)
    chunks = [chunk async for chunk in node.stub.GenerateStream(request, timeout=_HANGING_S)]
    assert "".join(chunk.text for chunk in chunks) == unary.answer
    assert [chunk.HasField("final") for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].final == unary and len(chunks) > 3


@pytest.mark.parametrize(
    ("request_fields", "kind"),
    [
        ({"query": ""}, errors.InvalidInputError),
        ({"query": "x" * 8_001}, errors.InvalidInputError),
        ({"query": "x" * 1_000}, errors.InvalidInputError),
        ({"query": QUERY, "max_new_tokens": -1}, errors.InvalidInputError),
        ({"query": QUERY, "model": "No Reference"}, errors.InvalidInputError),
        ({"query": QUERY, "model": "nobody"}, errors.NotFoundError),
    ],
)
async def test_request_is_refused_when_it_is_wrong(node, request_fields, kind):
    with pytest.raises(kind):
        await node.ask(**request_fields)
    request = inference_pb2.GenerateRequest(**request_fields)
    with pytest.raises(kind):
        async with client.typed_errors():
            async for _ in node.stub.GenerateStream(request, timeout=_HANGING_S):
                pass
    assert (await node.ask(model=answering.BASE)).answer == _expected(None)


async def test_node_answers_others_when_a_caller_goes_away(node):
    call = node.stub.GenerateStream(inference_pb2.GenerateRequest(query=QUERY, max_new_tokens=150))
    await call.read()
    call.cancel()
    assert (await node.ask()).answer == _expected(None)


async def test_start_is_refused_when_the_port_is_taken(node, tmp_path):
    settings = _settings(tmp_path / "second", _free_address(), f"127.0.0.1:{node.port}")
    with pytest.raises(errors.ConfigError, match=str(node.port)):
        async with server.running(settings, lambda _: tiny_model.tiny_base(0), None):
            pass


async def test_card_answers_when_it_is_published_and_its_successor_after_it(store, base, tmp_path):
    first = tiny_model.card_for(base, "swapped", seed=1)
    second = tiny_model.card_for(base, "swapped", "1.1.0", seed=2)
    async with _running(tmp_path, [_control(store)]) as node:
        bare = await node.ask(model="base")
        one = await _publish(store, first)
        status = await node.until_swapped_to(one)
        assert status.store_connected and status.revision > 0
        [swap] = [swap for swap in status.swaps if swap.card == one]
        assert swap.fetch_ms > 0 and swap.swap_ms > 0 and swap.at_ms > 0

        node.router.choose(one)
        found = await node.ask()
        assert (found.card, found.answer) == (one, _expected(first))
        assert found.confidence == pytest.approx(0.9)
        assert found.answer != bare.answer and found.rewritten_query == ""

        [routed] = node.router.response.candidates
        routed.similarity, routed.nearest_example = 0.8, "Who made it?"
        similar = await node.ask()
        assert similar.rewritten_query == "Who made it?"
        assert similar.answer == _expected(first, "Who made it?") != found.answer

        two = await _publish(store, second)
        await node.until_swapped_to(two)
        node.router.choose(two)
        assert (await node.ask()).answer == _expected(second)
        assert (await node.ask(model="swapped")).card == two
        assert (await node.ask(model="base")).answer == bare.answer
        with pytest.raises(errors.NotFoundError):
            await node.ask(model=one)


async def test_cards_are_joined_later_when_the_store_is_down_at_the_start(store, base, tmp_path):
    card = tiny_model.card_for(base, "late", seed=3)
    stores: list[str] = []
    async with _running(tmp_path, stores) as node:
        assert (await node.ask()).answer == _expected(None)
        key = await _publish(store, card)
        stores.append(_control(store))
        await node.until_swapped_to(key)
        assert (await node.ask(model="late")).answer == _expected(card)


async def test_kept_files_serve_again_when_the_node_restarts(store, base, tmp_path):
    key = await _publish(store, tiny_model.card_for(base, "kept", seed=4))
    digest = key.partition("@")[2]
    path = tmp_path / "inference" / "cards" / f"{digest}{formats.SUFFIX}"
    identities = []
    for damage in (False, False, True):
        if damage:
            path.write_bytes(b"damaged")
        async with _running(tmp_path, [_control(store)]) as node:
            await node.until_swapped_to(key)
        assert formats.file_digest(path) == digest
        identities.append(path.stat().st_ino)
    assert identities[0] == identities[1], "a right file was fetched again"


async def test_card_is_skipped_when_it_is_for_another_base(store, base, tmp_path):
    async with _running(tmp_path, [_control(store)]) as node:
        other = await _publish(store, tiny_model.card_for(base, "other", fingerprint="0" * 64))
        good = await _publish(store, tiny_model.card_for(base, "good", seed=5))
        status = await node.until_swapped_to(good)
        assert other not in status.served
        node.router.choose(other)
        assert (await node.ask()).card == ""


async def test_every_request_succeeds_when_cards_are_swapped_all_the_time(store, base, tmp_path):
    versions = [tiny_model.card_for(base, "busy", f"1.{n}.0", seed=10 + n) for n in range(4)]
    async with _running(tmp_path, [_control(store)]) as node:
        first = await _publish(store, versions[0])
        await node.until_swapped_to(first)
        expected = {first: _expected(versions[0])}
        swapped, answers = asyncio.Event(), []

        async def ask_on() -> None:
            while not swapped.is_set():
                answers.append(await node.ask(model="busy"))

        async def publish_all() -> None:
            for card in versions[1:]:
                key = await _publish(store, card)
                expected[key] = _expected(card)
                await node.until_swapped_to(key)
            swapped.set()

        await asyncio.gather(publish_all(), *(ask_on() for _ in range(3)))
        answers.append(await node.ask(model="busy"))
        assert all(found.answer == expected[found.card] for found in answers)
        assert (
            len({found.card for found in answers}) >= 2 and answers[-1].card == list(expected)[-1]
        )


async def test_cards_take_turns_in_memory_when_it_holds_but_one(store, base, tmp_path):
    made = {name: tiny_model.card_for(base, name, seed=n) for n, name in enumerate("xyz", 20)}
    room = managers.LoRAManager(base.model).cost_bytes(made["x"]) * 1.5 / 2**20
    async with _running(tmp_path, [_control(store)], card_memory_mib=room) as node:
        for card in made.values():
            await node.until_swapped_to(await _publish(store, card))
        for name in "xyzx":
            assert (await node.ask(model=name)).answer == _expected(made[name])
            status = await node.status()
            assert [key.partition("@")[0] for key in status.resident] == [name]
            assert {key.partition("@")[0] for key in status.served} >= set("xyz")
            assert 0 < status.held_bytes <= room * 2**20


async def test_engine_of_a_plain_process_learns_of_cards_when_it_is_attached(store, base, tmp_path):
    card = tiny_model.card_for(base, "attached", seed=30)
    key = await _publish(store, card)
    fake = FakeRouter()

    async def find() -> list[discovery.StoreAddress]:
        return [discovery.StoreAddress(_control(store), _control(store))]

    async with asyncio.timeout(_HANGING_S), _router(fake) as address:
        settings = _settings(tmp_path, address)
        engine = engines.ArrowEngine(tiny_model.tiny_base(0), settings.inference)
        engine.start()
        evolution = await engine.enable_evolution(settings, find)
        with pytest.raises(errors.PreconditionError, match="attached"):
            await engine.enable_evolution(settings, find)
        unknown = await evolution.answers.answer(answering.Question(QUERY))
        assert unknown.routing.event_id == "event-1" and unknown.generation.card is None
        while key not in engine.served():
            await asyncio.sleep(0.01)
        fake.choose(key)
        found = await evolution.answers.answer(answering.Question(QUERY))
        assert (found.generation.card, found.generation.answer) == (key, _expected(card))
        await engine.stop()
