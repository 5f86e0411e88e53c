"""OpenAI's own client against a gateway with a real node and a real card store behind it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import json
import uuid
from collections.abc import AsyncIterator

import numpy as np
import openai
import pytest

from services.gateway.nodes import fleet as fleets
from shared import settings as config
from shared.cards import card as cards
from shared.pb import cards_pb2, cards_pb2_grpc
from shared.rpc import client as rpc_client
from tests import fake_router_peers, tiny_model
from tests.contract import addresses, gateways
from tests.contract import inference_nodes as nodes
from tests.contract.card_store_processes import Store

pytestmark = pytest.mark.usefixtures("patient")

ASKED = [{"role": "user", "content": nodes.QUERY}]
PATH = "/v1/chat/completions"


@dataclasses.dataclass
class Mesh:
    """A gateway with all that is behind it."""

    gateway: gateways.Gateway
    fleet: fleets.Fleet
    node: nodes.Node
    router: nodes.FakeRouter
    card: cards.LoRACard
    key: str
    """`name@digest` of the card that the node serves."""

    @property
    def client(self) -> openai.AsyncOpenAI:
        return self.gateway.client()


@contextlib.asynccontextmanager
async def running(folder, store: Store, **gateway) -> AsyncIterator[Mesh]:
    name = f"skill-{uuid.uuid4().hex[:8]}"
    card = tiny_model.card_for(tiny_model.tiny_base(0), name)
    router = nodes.FakeRouter()
    async with contextlib.AsyncExitStack() as stack:
        router_address = await stack.enter_async_context(nodes.router_server(router))
        stores = [nodes.control(store)]
        node = await stack.enter_async_context(
            nodes.running(folder, stores, router_address, batch_rows=1)
        )
        key = await nodes.publish(store, card)
        while key not in (await node.status()).served:
            await asyncio.sleep(0.01)
        settings = config.Settings(
            gateway=config.Gateway(nodes_every_s=0.05, **gateway),
            router=config.Router(address=router_address),
            inference=config.Inference(address=f"127.0.0.1:{node.port}"),
            card_store=config.CardStore(address=nodes.control(store)),
            factory=config.Factory(address=addresses.free_address()),
        )
        fleet = await stack.enter_async_context(fleets.running(settings))
        serving = await stack.enter_async_context(gateways.serving(settings, fleet))
        yield Mesh(serving, fleet, node, router, card, key)


@pytest.fixture
async def mesh(tmp_path, store) -> AsyncIterator[Mesh]:
    async with running(tmp_path, store) as found:
        yield found


async def test_lists_the_base_and_every_card_with_parent_and_root(mesh):
    async with mesh.client as client:
        found = {one.id: one async for one in client.models.list()}
    name = mesh.key.partition("@")[0]
    assert found["tiny"].model_extra == {"root": "tiny", "parent": None}
    assert found["auto"].model_extra["parent"] == "tiny"
    assert found[name].owned_by == "skillmesh" and found[name].created > 0
    assert found[name].model_extra["parent"] == "tiny"
    assert found[name].model_extra["root"] == mesh.key


async def test_finds_a_model_by_every_name_that_it_may_be_asked_by(mesh, store):
    name, _, digest = mesh.key.partition("@")
    async with rpc_client.channel(nodes.control(store)) as channel:
        stub = cards_pb2_grpc.CardStoreStub(channel)
        moved = cards_pb2.SetAliasRequest(
            idempotency_key=uuid.uuid4().hex, name=name, alias="proven", digest=digest
        )
        await rpc_client.call(stub.SetAlias, moved)
    async with mesh.client as client:
        for asked in (name, mesh.key, f"{name}@proven"):
            found = await client.models.retrieve(asked)
            assert (found.id, found.model_extra["root"]) == (asked, mesh.key)
            told = await client.chat.completions.create(model=asked, messages=ASKED)
            assert told.choices[0].message.content == nodes.expected_of(mesh.card)
            assert told.model_extra["skillmesh"]["card"] == mesh.key
        for asked in ("tiny", "base"):
            told = await client.chat.completions.create(model=asked, messages=ASKED)
            assert told.choices[0].message.content == nodes.expected_of(None)
            assert (await client.models.retrieve(asked)).model_extra["root"] == "tiny"


@pytest.mark.parametrize("name", ["gpt-4", "skill@latest", "a@b@c", "Ä", "../x", "x" * 9999])
async def test_does_not_find_a_model_that_is_not_there(mesh, name):
    async with mesh.client as client:
        with pytest.raises(openai.NotFoundError) as asked:
            await client.chat.completions.create(model=name, messages=ASKED)
        with pytest.raises(openai.NotFoundError) as completed:
            await client.completions.create(model=name, prompt="x")
        with pytest.raises(openai.NotFoundError) as embedded:
            await client.embeddings.create(model=name, input="x")
    for refused in (asked, completed, embedded):
        assert refused.value.code == "model_not_found"
        assert len(refused.value.message) < 1000


async def test_answers_what_the_router_decides(mesh):
    mesh.router.choose(mesh.key)
    async with mesh.client as client:
        raw = await client.chat.completions.with_raw_response.create(model="auto", messages=ASKED)
        found = raw.parse()
        assert found.choices[0].message.content == nodes.expected_of(mesh.card)
        assert raw.headers["x-skillmesh-card"] == mesh.key
        assert raw.headers["x-skillmesh-confidence"] == "0.9000"
        assert raw.headers["x-skillmesh-node"] == f"127.0.0.1:{mesh.node.port}"
        assert found.usage.completion_tokens == nodes.TOKENS
        assert found.choices[0].finish_reason == "length"


async def test_streams_the_same_answer(mesh):
    async with mesh.client as client:
        stream = await client.chat.completions.create(
            model="auto", messages=ASKED, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
    assert text == nodes.expected_of(None)
    assert len(chunks) >= 3
    assert chunks[-1].usage.completion_tokens == nodes.TOKENS
    assert chunks[-2].model_extra["skillmesh"]["event_id"] == "event-1"


async def test_continues_a_text(mesh):
    async with mesh.client as client:
        found = await client.completions.create(model="base", prompt="abc", max_tokens=5)
        stream = await client.completions.create(
            model="base", prompt="abc", max_tokens=5, stream=True
        )
        pieces = [chunk.choices[0].text async for chunk in stream]
    assert found.usage.completion_tokens == 5 and found.choices[0].text
    assert "".join(pieces) == found.choices[0].text


async def test_tells_log_probabilities_of_every_token(mesh):
    async with mesh.client as client:
        found = await client.chat.completions.create(
            model="base", messages=ASKED, logprobs=True, top_logprobs=2, max_tokens=4
        )
    tokens = found.choices[0].logprobs.content
    assert len(tokens) == 4
    told = b"".join(bytes(one.bytes) for one in tokens)
    assert told.decode(errors="replace") == found.choices[0].message.content
    for one in tokens:
        assert len(one.top_logprobs) == 2 and one.logprob <= 0
        # The likeliest is taken where no temperature is given.
        assert one.top_logprobs[0].logprob == one.logprob


async def test_answers_json_that_fits_a_schema(mesh):
    schema = {
        "type": "object",
        "properties": {"yes": {"type": "boolean"}},
        "required": ["yes"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": schema}}
    async with mesh.client as client:
        found = await client.chat.completions.create(
            model="base", messages=ASKED, response_format=wanted, max_tokens=100
        )
    assert isinstance(json.loads(found.choices[0].message.content)["yes"], bool)


async def test_embeds_as_the_router_does_in_both_encodings(mesh):
    texts = ["Who built it?", "What is a card?"]
    async with mesh.client as client:
        # The client asks for base64 by itself.
        found = await client.embeddings.create(model="all-MiniLM-L6-v2", input=texts)
        plain = await client.embeddings.create(
            model="all-MiniLM-L6-v2", input=texts[0], encoding_format="float"
        )
        packed = await client.embeddings.with_raw_response.create(
            model="all-MiniLM-L6-v2", input=texts[0], encoding_format="base64"
        )
    expected = fake_router_peers.HashingEmbedder().embed(texts)
    assert np.allclose([one.embedding for one in found.data], expected, atol=1e-6)
    assert np.allclose(plain.data[0].embedding, expected[0], atol=1e-6)
    data = json.loads(packed.text)["data"][0]["embedding"]
    assert np.array_equal(np.frombuffer(base64.b64decode(data), "<f4"), expected[0].astype("<f4"))
    # [CLS] who built it ? [SEP], [CLS] what is a card ? [SEP]
    assert found.usage.prompt_tokens == found.usage.total_tokens == 13
    assert found.model_extra["skillmesh"]["tokens_counted_by"] == "tokenizer"


async def test_what_is_too_large_for_a_node_is_no_request_to_send_again(mesh):
    schema = {"type": "object", "description": "\N{SNOWMAN}" * 800_000}
    form = {"type": "json_schema", "json_schema": {"name": "large", "schema": schema}}
    async with mesh.client as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(model="auto", messages=ASKED, response_format=form)
    assert "retry-after" not in refused.value.response.headers
    assert refused.value.code == "too_large_for_this_model"


async def test_embeds_when_the_number_of_dimensions_is_what_it_is_anyway(mesh):
    async with mesh.client as client:
        asked = {"model": "all-MiniLM-L6-v2", "input": "Who?"}
        told = await client.embeddings.create(**asked, dimensions=384)
        assert told.data == (await client.embeddings.create(**asked)).data


async def test_frees_the_slot_of_the_node_when_a_stream_is_left(mesh):
    async with mesh.client as client:
        stream = await client.chat.completions.create(
            model="base", messages=ASKED, stream=True, max_tokens=150
        )
        await anext(stream)
        await stream.close()
        own = f"127.0.0.1:{mesh.node.port}"
        while True:
            status = await mesh.node.status()
            # Nodes of tests before may still be on record.
            [state] = [one for one in mesh.fleet.nodes() if one.address == own]
            if state.requests and not status.running and not status.waiting:
                break
            await asyncio.sleep(0.01)
        assert dict(state.requests) == {"cancelled": 1}
        # There is but one row for all: it would still be taken.
        told = await client.chat.completions.create(model="base", messages=ASKED)
    assert told.choices[0].message.content == nodes.expected_of(None)


async def test_pins_a_card_by_its_name_and_lets_it_go(mesh):
    name = mesh.key.partition("@")[0]
    status, _, told = await mesh.gateway.send("POST", "/v1/load_lora_adapter", {"lora_name": name})
    assert (status, told["card"]) == (200, mesh.key)
    assert list((await mesh.node.status()).pinned) == [mesh.key]
    await mesh.gateway.send("POST", "/v1/unload_lora_adapter", {"lora_name": name})
    assert list((await mesh.node.status()).pinned) == []
    status, _, told = await mesh.gateway.send(
        "POST", "/v1/load_lora_adapter", {"lora_name": "gone"}
    )
    assert (status, told["error"]["code"]) == (404, "model_not_found")


async def test_is_ready_when_a_node_and_the_router_are(mesh):
    while (await mesh.gateway.send("GET", "/readyz"))[0] != 200:
        await asyncio.sleep(0.02)  # The first connection to the router takes its time.


async def test_is_not_ready_when_nobody_answers():
    settings = config.Settings(
        gateway=config.Gateway(nodes_every_s=0.05),
        router=config.Router(address=addresses.free_address()),
        inference=config.Inference(address=addresses.free_address()),
        card_store=config.CardStore(address=addresses.free_address()),
    )
    asked = {"model": "base", "messages": ASKED}
    async with gateways.serving(settings) as gateway:
        status, _, told = await gateway.send("GET", "/readyz")
        assert (status, told["reason"]) == (503, "no inference node answers")
        status, headers, told = await gateway.send("POST", PATH, asked)
        assert (status, told["error"]["code"]) == (503, "unavailable")
        assert headers["retry-after"] == "1"
        assert settings.inference.address not in told["error"]["message"]
