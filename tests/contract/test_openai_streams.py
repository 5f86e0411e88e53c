"""What the gateway sends of an answer piece by piece: over HTTP on loopback."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest

from shared import settings as config
from tests.contract import addresses, gateways

CHAT: dict[str, Any] = {
    "model": "auto",
    "messages": [{"role": "user", "content": "Who built it?"}],
}
PATH = "/v1/chat/completions"


@pytest.fixture
def fleet() -> gateways.FakeFleet:
    return gateways.FakeFleet()


@pytest.fixture
async def gateway(fleet) -> AsyncIterator[gateways.Gateway]:
    """Nobody is at the other addresses."""
    settings = config.Settings(
        router=config.Router(address=addresses.free_address()),
        card_store=config.CardStore(address=addresses.free_address()),
        factory=config.Factory(address=addresses.free_address()),
    )
    async with gateways.serving(settings, fleet) as running:
        yield running


async def test_streams_pieces_as_they_come_and_ends_with_what_was_used(gateway, fleet):
    fleet.holds.clear()
    async with gateway.client() as client:
        stream = await client.chat.completions.create(
            **CHAT, stream=True, stream_options={"include_usage": True}
        )
        chunks = [await anext(stream)]
        # The second piece does not exist yet: nothing held the first one back.
        fleet.holds.set()
        chunks += [chunk async for chunk in stream]
    *_, last, usage = chunks
    assert [one.choices[0].delta.role for one in chunks[:3]] == ["assistant", None, None]
    assert [one.choices[0].delta.content for one in chunks[:3]] == ["It ", "was ", "Ann."]
    assert last.choices[0].finish_reason == "stop"
    assert last.model_extra["skillmesh"]["node"] == gateways.NODE
    assert usage.choices == [] and usage.usage.total_tokens == 10
    assert len({one.id for one in chunks}) == 1


async def test_an_answer_without_a_word_is_an_assistants_all_the_same(gateway, fleet):
    fleet.pieces = ()
    async with gateway.client() as client:
        stream = await client.chat.completions.create(**CHAT, stream=True)
        first, *_, last = [chunk.choices[0] async for chunk in stream]
    assert (first.delta.role, first.delta.content) == ("assistant", "")
    assert last.finish_reason == "stop"


async def test_every_event_is_one_line_for_whoever_reads_lines_of_unicode(gateway, fleet):
    fleet.pieces = ("one\u2028two", "three\u2029four", "five\x85six\n")
    async with (
        httpx2.AsyncClient() as client,
        client.stream("POST", f"{gateway.url}{PATH}", json=CHAT | {"stream": True}) as answer,
    ):
        lines = [line async for line in answer.aiter_lines() if line]
    *chunks, done = [line.removeprefix("data: ") for line in lines]
    told = [json.loads(one)["choices"][0]["delta"].get("content", "") for one in chunks]
    assert "".join(told) == "".join(fleet.pieces) and done == "[DONE]"


async def test_streams_completions(gateway, fleet):
    async with gateway.client() as client:
        stream = await client.completions.create(model="auto", prompt="It", stream=True)
        chunks = [chunk async for chunk in stream]
    assert "".join(one.choices[0].text for one in chunks) == "It was Ann."
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(one.usage is None for one in chunks)


async def test_ends_a_stream_with_the_error_when_it_has_begun(gateway, fleet):
    fleet.fails_after = gateways.unreachable()
    async with gateway.client() as client:
        stream = await client.chat.completions.create(**CHAT, stream=True)
        found = []
        with pytest.raises(openai.APIError, match="no inference node answers") as raised:
            async for chunk in stream:
                found.append(chunk.choices[0].delta.content)
    assert "".join(found) == "It was Ann."
    assert raised.value.body["code"] == "unavailable"


async def test_frees_the_slot_when_the_client_leaves_a_stream(gateway, fleet):
    fleet.holds.clear()
    async with gateway.client() as client:
        stream = await client.chat.completions.create(**CHAT, stream=True)
        await anext(stream)
        assert fleet.running == 1
        await stream.close()
        await fleet.idle.wait()
    assert fleet.running == 0
