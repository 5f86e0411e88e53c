"""A node over loopback: conversations, log-probabilities, JSON, pinned cards, load and address."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator

import jsonschema
import pytest

from services.inference import server
from shared import errors, multicast
from shared import settings as config
from shared.lora import manager as managers
from shared.models import base as bases
from shared.models import chat
from shared.pb import cards_pb2, cards_pb2_grpc, inference_pb2
from shared.rpc import client
from tests import tiny_model
from tests.contract import inference_nodes as nodes

pytestmark = pytest.mark.usefixtures("patient")

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["n"],
    "additionalProperties": False,
}


@pytest.fixture
async def node(tmp_path) -> AsyncIterator[nodes.Node]:
    async with nodes.running(tmp_path, []) as running:
        yield running


def turns(*said: tuple[str, str]) -> list[inference_pb2.ChatMessage]:
    return [inference_pb2.ChatMessage(role=role, content=content) for role, content in said]


TALK = ("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes?")


def expected_of(*said: tuple[str, str]) -> tuple[str, int]:
    base = tiny_model.tiny_base(0)
    prompt = base.chat_ids([chat.Message(*one) for one in said])
    ids = tiny_model.continued_ids(base, prompt, nodes.TOKENS)
    return base.tokenizer.decode(ids, skip_special_tokens=True), len(prompt)


async def test_conversation_is_answered_as_transformers_does_and_its_last_message_routed(node):
    said = *TALK, ("user", nodes.QUERY)
    found = await node.ask("", messages=turns(*said))
    assert (found.answer, found.prompt_tokens) == expected_of(*said)
    assert [one.query for one in node.router.asked] == [nodes.QUERY]
    one = await node.ask("", messages=turns(("user", nodes.QUERY)))
    assert one.answer == nodes.expected_of(None) != found.answer


async def test_only_the_last_message_is_read_as_the_cards_question(store, tmp_path):
    base = tiny_model.tiny_base(0)
    async with nodes.running(tmp_path, [nodes.control(store)]) as node:
        key = await nodes.publish(store, tiny_model.card_for(base, "talker", seed=41))
        await node.until_swapped_to(key)
        node.router.choose(key)
        [routed] = node.router.response.candidates
        routed.similarity, routed.nearest_example = 0.8, "Who made it?"
        found = await node.ask("", messages=turns(*TALK, ("user", nodes.QUERY)))
        assert (found.card, found.rewritten_query) == (key, "Who made it?")
        asked = [*TALK, ("user", "Who made it?")]
        named = await node.ask("", messages=turns(*asked), model="talker")
        assert named.answer == found.answer and named.prompt_tokens == found.prompt_tokens


async def test_conversation_is_sampled_when_semantic_entropy_is_told(tmp_path):
    async with nodes.running(tmp_path, [], semantic_samples=2) as node:
        await node.ask("", messages=turns(*TALK, ("user", nodes.QUERY)))
        report = await asyncio.wait_for(node.router.reports.get(), nodes.HANGING_S)
        assert report.signals.HasField("semantic_entropy")
        assert (await node.status()).semantic_sampled == 1


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"query": "a", "messages": turns(("user", "b"))}, "both given"),
        ({"messages": turns(("tool", "b"))}, r"messages\[0\].role"),
        ({"messages": turns(("user", "b"), ("assistant", "c"))}, r"messages\[1\].role"),
        ({"messages": turns(("user", "b"), ("system", "c"), ("user", "d"))}, r"messages\[1\]"),
        ({"messages": turns(("user", "x" * 8_001))}, r"messages\[0\].content has 8,001"),
        ({"messages": turns(("system", "x" * 150_000), ("assistant", "x" * 60_000), ("user", "b"))},
         "210,001 characters"),
        ({"messages": turns(("system", "x" * 20_000), ("user", "b"))}, "20,001 characters"),
        ({"messages": turns(("system", "x" * 300), ("user", "b"))}, "context of base model tiny"),
        ({"query": "a", "top_logprobs": 21}, "top_logprobs"),
        ({"query": "a", "json_schema": "{"}, "json_schema is not JSON"),
        ({"query": "a", "json_schema": '{"if": {}}'}, "json_schema is not supported at its top"),
    ],
)  # fmt: skip
async def test_request_is_refused_with_the_place_when_it_is_wrong(node, fields, match):
    request = inference_pb2.GenerateRequest(**fields)
    with pytest.raises(errors.InvalidInputError, match=match):
        await client.call(node.stub.Generate, request, nodes.HANGING_S)
    status = await node.status()
    assert status.running == status.waiting == 0


async def test_chunks_tell_each_token_once_when_logprobs_are_asked_for(node):
    request = inference_pb2.GenerateRequest(query=nodes.QUERY, top_logprobs=2)
    whole = await client.call(node.stub.Generate, request, nodes.HANGING_S)
    assert whole.answer == nodes.expected_of(None)
    assert len(whole.logprobs) == whole.new_tokens
    assert b"".join(one.bytes for one in whole.logprobs).decode(errors="replace") == whole.answer
    assert all(len(one.top) == 2 and one.top[0].logprob >= one.top[1].logprob < 0
               for one in whole.logprobs)  # fmt: skip
    chunks = [chunk async for chunk in node.stub.GenerateStream(request, timeout=nodes.HANGING_S)]
    assert [one for chunk in chunks for one in chunk.logprobs] == list(whole.logprobs)
    assert chunks[-1].final == whole
    assert not (await node.ask()).logprobs
    code = inference_pb2.CompleteRequest(prefix="def f(", top_logprobs=0)
    done = await client.call(node.stub.Complete, code, nodes.HANGING_S)
    parts = [chunk async for chunk in node.stub.CompleteStream(code, timeout=nodes.HANGING_S)]
    assert [one for part in parts for one in part.logprobs] == list(done.logprobs)
    assert len(done.logprobs) == done.new_tokens and not done.logprobs[0].top


async def test_answer_is_json_when_a_schema_is_asked_for(node):
    found = await node.ask(
        json_schema=json.dumps(SCHEMA), temperature=1.0, seed=1, max_new_tokens=120
    )
    assert found.finish_reason == "stop"
    jsonschema.validate(json.loads(found.answer), SCHEMA)
    cut = await node.ask(json_schema=json.dumps(SCHEMA), max_new_tokens=2)
    assert (cut.finish_reason, cut.new_tokens) == ("length", 2)


class Gate:
    """Holds a model before each forward pass; `step` lets it make one, once the last was made."""

    def __init__(self) -> None:
        self._passes = threading.Semaphore(0)
        self._let = self._made = 0

    def hold(self, *_: object) -> None:
        assert self._passes.acquire(timeout=nodes.HANGING_S)
        self._made += 1

    def let(self, count: int) -> None:
        self._let += count
        self._passes.release(count)

    def step(self) -> bool:
        """Whether the model may make one more; not while it still may."""
        if self._made < self._let:
            return False
        self.let(1)
        return True


async def test_row_is_free_again_when_a_stream_is_cancelled(tmp_path, monkeypatch):
    gate, made = Gate(), []
    tiny_base = tiny_model.tiny_base

    def gated(seed: int) -> bases.BaseModel:
        made.append(tiny_base(seed))
        return made[-1]

    monkeypatch.setattr(tiny_model, "tiny_base", gated)
    async with nodes.running(tmp_path, []) as node:
        hook = made[0].model.register_forward_pre_hook(gate.hold)
        request = inference_pb2.GenerateRequest(query="a", max_new_tokens=170)
        calls = [node.stub.GenerateStream(request) for _ in range(3)]
        while (status := await node.status()).running + status.waiting < 3:
            pass  # A row that could go on meanwhile would be done before the last one comes.
        while (status := await node.status()).running < 3:
            gate.step()
        assert status.waiting == 0
        chosen = config.Inference()
        assert (status.most_rows, status.queue) == (chosen.batch_rows, chosen.queue)
        assert status.max_new_tokens == nodes.TOKENS
        assert status.context_tokens == tiny_model.CONTEXT_TOKENS
        gate.let(20)
        await asyncio.gather(*(call.read() for call in calls))
        for cancelled, left in ((calls[:2], 1), (calls[2:], 0)):
            for call in cancelled:
                call.cancel()
            tokens = 0
            while (await node.status()).running > left:
                tokens += gate.step()
                assert tokens < 60, "a row of a cancelled stream is answered to its end"
        hook.remove()
        gate.let(100)
        monkeypatch.undo()
        assert (await node.ask()).answer == nodes.expected_of(None)


async def test_card_stays_in_memory_while_it_is_pinned(store, tmp_path):
    base = tiny_model.tiny_base(0)
    made = {name: tiny_model.card_for(base, name, seed=n) for n, name in enumerate("pq", 50)}
    room = managers.LoRAManager(base.model).cost_bytes(made["p"]) * 1.5 / 2**20
    async with nodes.running(tmp_path, [nodes.control(store)], card_memory_mib=room) as node:
        keys = {}
        for name, card in made.items():
            keys[name] = await nodes.publish(store, card)
            await node.until_swapped_to(keys[name])

        async def pin(name: str) -> str:
            request = inference_pb2.PinCardRequest(card=name)
            return (await client.call(node.stub.PinCard, request, nodes.HANGING_S)).card

        async def unpin(name: str) -> str:
            request = inference_pb2.UnpinCardRequest(card=name)
            return (await client.call(node.stub.UnpinCard, request, nodes.HANGING_S)).card

        assert await pin("p") == keys["p"] == await pin(keys["p"])
        status = await node.status()
        assert list(status.pinned) == list(status.resident) == [keys["p"]]
        with pytest.raises(errors.CapacityError, match="pinned"):
            await node.ask(model="q")
        assert await unpin("p") == keys["p"]
        status = await node.status()
        assert not status.pinned and not status.resident and keys["p"] in status.served
        assert (await node.ask(model="q")).card == keys["q"]
        assert (await node.ask(model="p")).card == keys["p"]
        for wrong, kind in (("nobody", errors.NotFoundError), ("No!", errors.InvalidInputError)):
            for call in (pin, unpin):
                with pytest.raises(kind):
                    await call(wrong)


async def test_store_tells_where_a_node_answers(store, tmp_path):
    async with (
        nodes.running(tmp_path / "own", [nodes.control(store)]) as own,
        nodes.running(tmp_path / "told", [nodes.control(store)], advertise="node-7:99") as told,
        client.channel(nodes.control(store)) as channel,
    ):
        expected = {
            (await own.status()).node_id: f"127.0.0.1:{own.port}",
            (await told.status()).node_id: "node-7:99",
        }
        stub = cards_pb2_grpc.CardStoreStub(channel)
        while True:
            listed = await client.call(stub.ListResidency, cards_pb2.ListResidencyRequest())
            found = {one.node_id: one.address for one in listed.nodes}
            if {name: found.get(name) for name in expected} == expected:
                break
        wrong = cards_pb2.ReportResidencyRequest(node_id="odd", address="no port")
        with pytest.raises(errors.InvalidInputError, match="address of node odd"):
            await client.call(stub.ReportResidency, wrong)


def test_node_that_listens_everywhere_tells_an_address_that_others_reach():
    everywhere = config.Inference(address="0.0.0.0:7407")
    own = frozenset({multicast.Address("127.0.0.1", 8), multicast.Address("10.1.2.3", 24)})
    assert server.advertised(everywhere, 5, lambda: own) == "10.1.2.3:5"
    assert server.advertised(everywhere, 5, frozenset) == "127.0.0.1:5"
    told = config.Inference(address="0.0.0.0:7407", advertise="node-7:99")
    assert server.advertised(told, 5, lambda: own) == "node-7:99"
    assert server.advertised(config.Inference(address="box:0"), 5, lambda: own) == "box:5"
