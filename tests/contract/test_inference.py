"""The inference node over loopback: a fake router, and a card store of two real processes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

import pytest

from services.inference import answering, server
from services.inference import engine as engines
from shared import discovery, errors
from shared.cards import format as formats
from shared.lora import manager as managers
from shared.pb import (
    inference_pb2,
)
from shared.rpc import client
from tests import tiny_model
from tests.contract import addresses
from tests.contract import inference_nodes as nodes

pytestmark = pytest.mark.usefixtures("patient")


@pytest.fixture
async def node(tmp_path) -> AsyncIterator[nodes.Node]:
    """A node without a store."""
    async with nodes.running(tmp_path, []) as running:
        yield running


@pytest.fixture(scope="module")
def base():
    return tiny_model.tiny_base(0)


async def test_base_answers_when_there_is_no_card(node):
    found = await node.ask(no_learning=True)
    assert found.answer == nodes.expected_of(None)
    assert (found.card, found.dissonance, found.event_id) == ("", True, "event-1")
    assert found.new_tokens == nodes.TOKENS and found.prompt_tokens > 0
    [asked] = node.router.asked
    assert asked.query == nodes.QUERY and asked.no_learning


async def test_router_is_told_how_sure_the_base_was_when_an_event_waits(node):
    await node.ask()
    [asked] = node.router.asked
    assert asked.reports_answer and asked.tenant == ""
    report = await asyncio.wait_for(node.router.reports.get(), nodes.HANGING_S)
    assert report.event_id == "event-1"
    assert report.signals.mean_logprob < 0 < report.signals.mean_entropy
    assert report.signals.tokens >= nodes.TOKENS
    assert not report.signals.HasField("semantic_entropy")
    await node.ask(model="base")
    assert node.router.reports.empty()


async def test_router_is_told_the_semantic_entropy_when_samples_are_asked_for(tmp_path):
    async with nodes.running(tmp_path, [], semantic_samples=3) as node:
        assert (await node.ask()).answer == nodes.expected_of(None)
        report = await asyncio.wait_for(node.router.reports.get(), nodes.HANGING_S)
        # Bytes at random: three answers with three meanings.
        assert report.signals.semantic_entropy == pytest.approx(math.log(3))
        assert report.signals.tokens >= nodes.TOKENS
        status = await node.status()
        assert (status.semantic_sampled, status.semantic_dropped) == (1, 0)


async def test_user_is_answered_when_router_and_store_are_away(tmp_path):
    async with nodes.running(
        tmp_path, [addresses.free_address()], addresses.free_address()
    ) as node:
        found = await node.ask()
        assert found.answer == nodes.expected_of(None)
        assert (found.card, found.confidence, found.dissonance) == ("", 0.0, False)
        status = await node.status()
        assert not status.store_connected and status.revision == 0 and status.node_id
        assert (status.base_model, status.resident) == ("tiny", [])


async def test_chunks_add_up_to_the_answer_when_it_is_streamed(node):
    unary = await node.ask()
    request = inference_pb2.GenerateRequest(query=nodes.QUERY)
    chunks = [chunk async for chunk in node.stub.GenerateStream(request, timeout=nodes.HANGING_S)]
    assert "".join(chunk.text for chunk in chunks) == unary.answer
    assert [chunk.HasField("final") for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].final == unary and len(chunks) > 1


@pytest.mark.parametrize(
    ("request_fields", "kind"),
    [
        ({"query": ""}, errors.InvalidInputError),
        ({"query": "x" * 8_001}, errors.InvalidInputError),
        ({"query": "x" * 1_000}, errors.InvalidInputError),
        ({"query": nodes.QUERY, "max_new_tokens": -1}, errors.InvalidInputError),
        ({"query": nodes.QUERY, "max_cards": 5}, errors.InvalidInputError),
        ({"query": nodes.QUERY, "model": "No Reference"}, errors.InvalidInputError),
        ({"query": nodes.QUERY, "model": "nobody"}, errors.NotFoundError),
    ],
)
async def test_request_is_refused_when_it_is_wrong(node, request_fields, kind):
    with pytest.raises(kind):
        await node.ask(**request_fields)
    request = inference_pb2.GenerateRequest(**request_fields)
    with pytest.raises(kind):
        async with client.typed_errors():
            async for _ in node.stub.GenerateStream(request, timeout=nodes.HANGING_S):
                pass
    assert (await node.ask(model=answering.BASE)).answer == nodes.expected_of(None)


async def test_node_answers_others_when_a_caller_goes_away(node):
    call = node.stub.GenerateStream(
        inference_pb2.GenerateRequest(query=nodes.QUERY, max_new_tokens=150)
    )
    await call.read()
    call.cancel()
    assert (await node.ask()).answer == nodes.expected_of(None)


async def test_start_is_refused_when_the_port_is_taken(node, tmp_path):
    settings = nodes.settings_for(
        tmp_path / "second", addresses.free_address(), f"127.0.0.1:{node.port}"
    )
    with pytest.raises(errors.ConfigError, match=str(node.port)):
        async with server.running(settings, lambda _: tiny_model.tiny_base(0), None):
            pass


async def test_card_answers_when_it_is_published_and_its_successor_after_it(store, base, tmp_path):
    first = tiny_model.card_for(base, "swapped", seed=1)
    second = tiny_model.card_for(base, "swapped", "1.1.0", seed=2)
    async with nodes.running(tmp_path, [nodes.control(store)]) as node:
        bare = await node.ask(model="base")
        one = await nodes.publish(store, first)
        status = await node.until_swapped_to(one)
        assert status.store_connected and status.revision > 0
        [swap] = [swap for swap in status.swaps if swap.card == one]
        assert swap.fetch_ms > 0 and swap.swap_ms > 0 and swap.at_ms > 0

        node.router.choose(one)
        found = await node.ask()
        assert (found.card, found.answer) == (one, nodes.expected_of(first))
        assert found.confidence == pytest.approx(0.9)
        assert found.answer != bare.answer and found.rewritten_query == ""

        [routed] = node.router.response.candidates
        routed.similarity, routed.nearest_example = 0.8, "Who made it?"
        similar = await node.ask()
        assert similar.rewritten_query == "Who made it?"
        assert similar.answer == nodes.expected_of(first, "Who made it?") != found.answer

        two = await nodes.publish(store, second)
        await node.until_swapped_to(two)
        node.router.choose(two)
        assert (await node.ask()).answer == nodes.expected_of(second)
        assert (await node.ask(model="swapped")).card == two
        assert (await node.ask(model="base")).answer == bare.answer
        with pytest.raises(errors.NotFoundError):
            await node.ask(model=one)


async def test_cards_are_joined_later_when_the_store_is_down_at_the_start(store, base, tmp_path):
    card = tiny_model.card_for(base, "late", seed=3)
    stores: list[str] = []
    async with nodes.running(tmp_path, stores) as node:
        assert (await node.ask()).answer == nodes.expected_of(None)
        key = await nodes.publish(store, card)
        stores.append(nodes.control(store))
        await node.until_swapped_to(key)
        assert (await node.ask(model="late")).answer == nodes.expected_of(card)


async def test_kept_files_serve_again_when_the_node_restarts(store, base, tmp_path):
    key = await nodes.publish(store, tiny_model.card_for(base, "kept", seed=4))
    digest = key.partition("@")[2]
    path = tmp_path / "inference" / "cards" / f"{digest}{formats.SUFFIX}"
    identities = []
    for damage in (False, False, True):
        if damage:
            path.write_bytes(b"damaged")
        async with nodes.running(tmp_path, [nodes.control(store)]) as node:
            await node.until_swapped_to(key)
        assert formats.file_digest(path) == digest
        identities.append(path.stat().st_ino)
    assert identities[0] == identities[1], "a right file was fetched again"


async def test_two_cards_answer_together_when_a_request_allows_it(store, base, tmp_path):
    async with nodes.running(tmp_path, [nodes.control(store)]) as node:
        keys = [
            await nodes.publish(store, tiny_model.card_for(base, f"half-{n}", seed=n))
            for n in (7, 8)
        ]
        await node.until_swapped_to(keys[0])
        await node.until_swapped_to(keys[1])
        node.router.choose(*keys)
        alone, both = await node.ask(), await node.ask(max_cards=2)
        assert [(one.card, one.weight) for one in alone.cards] == [(keys[0], 1.0)]
        assert [(one.card, one.weight) for one in both.cards] == [(key, 0.5) for key in keys]
        assert both.card == keys[0] and both.answer != alone.answer
        assert not [one for one in (await node.status()).resident if " + " in one]


async def test_card_is_skipped_when_it_is_for_another_base(store, base, tmp_path):
    async with nodes.running(tmp_path, [nodes.control(store)]) as node:
        other = await nodes.publish(store, tiny_model.card_for(base, "other", fingerprint="0" * 64))
        good = await nodes.publish(store, tiny_model.card_for(base, "good", seed=5))
        status = await node.until_swapped_to(good)
        assert other not in status.served
        node.router.choose(other)
        assert (await node.ask()).card == ""


async def test_every_request_succeeds_when_cards_are_swapped_all_the_time(store, base, tmp_path):
    versions = [tiny_model.card_for(base, "busy", f"1.{n}.0", seed=10 + n) for n in range(4)]
    async with nodes.running(tmp_path, [nodes.control(store)]) as node:
        first = await nodes.publish(store, versions[0])
        await node.until_swapped_to(first)
        expected = {first: nodes.expected_of(versions[0])}
        swapped, answers = asyncio.Event(), []

        async def ask_on() -> None:
            while not swapped.is_set():
                answers.append(await node.ask(model="busy"))

        async def publish_all() -> None:
            for card in versions[1:]:
                key = await nodes.publish(store, card)
                expected[key] = nodes.expected_of(card)
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
    async with nodes.running(tmp_path, [nodes.control(store)], card_memory_mib=room) as node:
        for card in made.values():
            await node.until_swapped_to(await nodes.publish(store, card))
        for name in "xyzx":
            assert (await node.ask(model=name)).answer == nodes.expected_of(made[name])
            status = await node.status()
            assert [key.partition("@")[0] for key in status.resident] == [name]
            assert {key.partition("@")[0] for key in status.served} >= set("xyz")
            assert 0 < status.held_bytes <= room * 2**20


async def test_engine_of_a_plain_process_learns_of_cards_when_it_is_attached(store, base, tmp_path):
    card = tiny_model.card_for(base, "attached", seed=30)
    key = await nodes.publish(store, card)
    fake = nodes.FakeRouter()

    async def find() -> list[discovery.StoreAddress]:
        return [discovery.StoreAddress(nodes.control(store), nodes.control(store))]

    async with asyncio.timeout(nodes.HANGING_S), nodes.router_server(fake) as address:
        settings = nodes.settings_for(tmp_path, address)
        engine = engines.ArrowEngine(tiny_model.tiny_base(0), settings.inference)
        engine.start()
        evolution = await engine.enable_evolution(settings, find)
        with pytest.raises(errors.PreconditionError, match="attached"):
            await engine.enable_evolution(settings, find)
        unknown = await evolution.answers.answer(answering.Question(nodes.QUERY))
        assert unknown.routing.event_id == "event-1" and unknown.generation.card is None
        while key not in engine.served():
            await asyncio.sleep(0.01)
        fake.choose(key)
        found = await evolution.answers.answer(answering.Question(nodes.QUERY))
        assert (found.generation.card, found.generation.answer) == (key, nodes.expected_of(card))
        await engine.stop()
