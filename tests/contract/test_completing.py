"""Completions over loopback: a node, a card store of two real processes, cards of code bases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from shared import errors
from shared.cards import card as cards
from shared.cards import manifest as manifests
from shared.lora import manager as managers
from shared.models import completion
from shared.pb import inference_pb2
from shared.rpc import client
from tests import tiny_model
from tests.contract import inference_nodes as nodes
from tests.contract.card_store_processes import Store

pytestmark = pytest.mark.usefixtures("patient")

PREFIX = "def half(x):\n    return"
ROUTE = manifests.SPECIALIST_LOCAL


@pytest.fixture(scope="module")
def base():
    return tiny_model.tiny_base(0)


@pytest.fixture
def store(tmp_path) -> Iterator[Store]:
    opened = Store(tmp_path / "store")
    yield opened
    opened.stop()


@pytest.fixture
async def node(tmp_path) -> AsyncIterator[nodes.Node]:
    """A node without a store."""
    async with nodes.running(tmp_path, []) as running:
        yield running


async def complete(
    node: nodes.Node, prefix: str = PREFIX, **more
) -> inference_pb2.CompleteResponse:
    request = inference_pb2.CompleteRequest(prefix=prefix, **more)
    return await client.call(node.stub.Complete, request, nodes.HANGING_S)


def specialist(base, name: str, seed: int, version: str = "1.0.0") -> cards.LoRACard:
    return tiny_model.card_for(base, f"specialist-{name}", version, seed=seed, route=ROUTE)


def expected_of(card: cards.LoRACard | None, prefix: str = PREFIX) -> str:
    """What transformers writes behind the prefix, on a model of its own."""
    base = tiny_model.tiny_base(0)
    if card is not None:
        manager = managers.LoRAManager(base.model)
        manager.apply_card(card, "card")
        manager.activate("card")
    room = tiny_model.CONTEXT_TOKENS - nodes.TOKENS
    prompt = completion.prompt_ids(base, prefix, most_tokens=room)
    return completion.text(base, tiny_model.continued_ids(base, prompt, nodes.TOKENS))


async def test_bare_base_completes_when_there_is_no_card_of_a_code_base(node):
    for model in ("", "auto", ROUTE, "base"):
        found = await complete(node, model=model)
        assert (found.text, found.card) == (expected_of(None), "")
        assert found.prompt_tokens == len(PREFIX) and found.new_tokens == nodes.TOKENS
        assert found.finish_reason == "length"
    assert (await node.ask(model=ROUTE)).answer == nodes.expected_of(None)
    assert node.router.asked == []


async def test_end_of_the_prefix_is_read_when_it_is_longer_than_the_context(node):
    prefix = "x = 1\n" * 50_000 + PREFIX
    found = await complete(node, prefix)
    assert found.prompt_tokens == tiny_model.CONTEXT_TOKENS - nodes.TOKENS
    assert (found.text, found.new_tokens) == (expected_of(None, prefix), nodes.TOKENS)


async def test_chunks_add_up_when_a_completion_is_streamed(node):
    whole = await complete(node)
    request = inference_pb2.CompleteRequest(prefix=PREFIX)
    chunks = [chunk async for chunk in node.stub.CompleteStream(request, timeout=nodes.HANGING_S)]
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert chunks[-1].final == whole and len(chunks) > 1


async def test_completion_ends_before_a_stop_text(node):
    whole = expected_of(None)
    found = await complete(node, stop=[whole[5:8]])
    assert (found.text, found.finish_reason) == (whole[: whole.index(whole[5:8])], "stop")


async def test_answers_are_the_same_when_questions_and_completions_come_together(node):
    found = await asyncio.gather(
        complete(node),
        node.ask(model="base"),
        complete(node, PREFIX + " x"),
        node.ask(model="base"),
    )
    assert [found[0].text, found[2].text] == [expected_of(None), expected_of(None, PREFIX + " x")]
    assert [found[1].answer, found[3].answer] == [nodes.expected_of(None)] * 2


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"prefix": ""}, errors.InvalidInputError),
        ({"path": "a/" * 2_049}, errors.InvalidInputError),
        ({"max_new_tokens": -1}, errors.InvalidInputError),
        ({"temperature": -1.0}, errors.InvalidInputError),
        ({"model": "No Reference"}, errors.InvalidInputError),
        ({"model": "specialist-nobody"}, errors.NotFoundError),
    ],
)
async def test_completion_is_refused_when_the_request_is_wrong(node, fields, kind):
    with pytest.raises(kind):
        await complete(node, **{"prefix": PREFIX, **fields})
    assert (await complete(node)).text == expected_of(None)


async def test_completion_ends_when_its_deadline_is_over(node):
    request = inference_pb2.CompleteRequest(prefix=PREFIX, max_new_tokens=100)
    with pytest.raises(errors.DeadlineError):
        await client.call(node.stub.Complete, request, 0.001)
    assert (await complete(node)).text == expected_of(None)


async def test_newest_card_of_a_code_base_completes_and_fixes_when_none_is_named(
    store, base, tmp_path
):
    old, new = specialist(base, "old", 1), specialist(base, "new", 2)
    newer_old = specialist(base, "old", 3, "1.1.0")
    other = tiny_model.card_for(base, "other", seed=4)
    async with nodes.running(tmp_path, [nodes.control(store)]) as node:
        one, two = await nodes.publish(store, old), await nodes.publish(store, new)
        await node.until_swapped_to(one)
        await node.until_swapped_to(two)
        await node.until_swapped_to(await nodes.publish(store, other))
        for model in ("", ROUTE):
            found = await complete(node, model=model)
            assert (found.card, found.text) == (two, expected_of(new))
        asked = await node.ask(model=ROUTE)
        assert (asked.card, asked.answer) == (two, nodes.expected_of(new))
        assert [share.card for share in asked.cards] == [two]
        named = await complete(node, model="specialist-old")
        assert (named.card, named.text) == (one, expected_of(old))
        assert (await complete(node, path="/home/me/old/src/new.py")).card == one
        assert (await complete(node, path="C:\\src\\old\\x.py")).card == one
        assert (await complete(node, path="old.py")).card == two
        assert (await complete(node, model="base", path="/old/x.py")).card == ""
        # A new version of the older one is the newest card.
        three = await nodes.publish(store, newer_old)
        await node.until_swapped_to(three)
        assert (await complete(node)).card == three
        assert node.router.asked == []
    # What came first is no longer told by the order of coming when a node reads the list.
    async with nodes.running(tmp_path / "again", [nodes.control(store)]) as node:
        served = await node.until_swapped_to(three)
        while two not in served.served:
            served = await node.status()
        assert (await complete(node)).card == three
