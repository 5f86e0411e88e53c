"""What the gateway makes of requests: against nodes of the test's own, over HTTP on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from services.gateway import domain
from shared import errors
from shared import settings as config
from tests.contract import addresses, gateways

ASKED = [{"role": "user", "content": "Who built it?"}]
CHAT: dict[str, Any] = {"model": "auto", "messages": ASKED}
PATH = "/v1/chat/completions"
HANGING_S = 180.0


@pytest.fixture
def fleet() -> gateways.FakeFleet:
    return gateways.FakeFleet()


def settings(**gateway: Any) -> config.Settings:
    """Nobody is at the other addresses."""
    return config.Settings(
        gateway=config.Gateway(**gateway),
        router=config.Router(address=addresses.free_address()),
        card_store=config.CardStore(address=addresses.free_address()),
        factory=config.Factory(address=addresses.free_address()),
    )


@pytest.fixture
async def gateway(fleet) -> AsyncIterator[gateways.Gateway]:
    async with gateways.serving(settings(), fleet) as running:
        yield running


async def test_answers_with_all_that_is_known_of_the_answer(gateway, fleet):
    fleet.answer_with = domain.Answer(
        text="",
        card="ann@1",
        confidence=0.75,
        dissonance=False,
        event_id="",
        rewritten_query="Who made it?",
        shares=(("ann@1", 1.0),),
        prompt_tokens=7,
        new_tokens=3,
        finish="length",
        node=gateways.NODE,
    )
    async with gateway.client() as client:
        raw = await client.chat.completions.with_raw_response.create(**CHAT)
    found = raw.parse()
    assert found.object == "chat.completion" and found.model == "auto"
    [choice] = found.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "It was Ann.")
    assert choice.finish_reason == "length"
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (7, 3)
    assert found.usage.total_tokens == 10
    assert found.model_extra["skillmesh"] == {
        "card": "ann@1",
        "cards": [{"card": "ann@1", "weight": 1.0}],
        "confidence": 0.75,
        "dissonance": False,
        "event_id": None,
        "task_id": None,
        "read_as": "Who made it?",
        "memory": None,
        "node": gateways.NODE,
    }
    assert raw.headers["x-skillmesh-card"] == "ann@1"
    assert raw.headers["x-skillmesh-confidence"] == "0.7500"
    assert raw.headers["x-skillmesh-node"] == gateways.NODE
    assert raw.headers["x-request-id"]
    assert "x-skillmesh-event" not in raw.headers


async def test_tells_the_event_at_once_when_nobody_knows_of_a_task(gateway, fleet):
    fleet.answer_with = domain.Answer("", "", 0.1, True, "event-1")
    async with gateway.client() as client:
        raw = await client.chat.completions.with_raw_response.create(**CHAT)
    assert raw.headers["x-skillmesh-event"] == "event-1"
    assert raw.parse().model_extra["skillmesh"]["event_id"] == "event-1"


async def test_asks_the_likeliest_words_when_no_temperature_is_given(gateway, fleet):
    async with gateway.client() as client:
        await client.chat.completions.create(**CHAT)
        await client.chat.completions.create(**CHAT, temperature=0.5, top_p=0)
    assert [one.sampling for one in fleet.asked] == [domain.Sampling(), domain.Sampling()]


async def test_hands_on_all_that_says_how_to_answer(gateway, fleet):
    async with gateway.client() as client:
        await client.chat.completions.create(
            model="base",
            messages=[
                {"role": "developer", "content": "Be short."},
                {"role": "user", "content": [{"type": "text", "text": "Who "}]},
                {"role": "assistant", "content": "Ann."},
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}],
                },
            ],
            temperature=0.5,
            top_p=0.9,
            seed=-1,
            stop="\n",
            max_completion_tokens=5,
            logprobs=True,
            top_logprobs=2,
            n=1,
            user="somebody",
            response_format={"type": "json_object"},
            extra_body={"agent": "tim", "no_learning": True, "max_cards": 2, "top_k": 40},
        )
    [asked] = fleet.asked
    assert asked == domain.Conversation(
        messages=(
            domain.Message("system", "Be short."),
            domain.Message("user", "Who "),
            domain.Message("assistant", "Ann."),
            domain.Message("user", "AB"),
        ),
        model="base",
        sampling=domain.Sampling(
            max_new_tokens=5,
            temperature=0.5,
            top_p=0.9,
            top_k=40,
            seed=2**63 - 1,
            stop=("\n",),
            top_logprobs=2,
        ),
        json_schema='{"type": "object"}',
        no_learning=True,
        agent="tim",
        max_cards=2,
    )


async def test_continues_a_text_when_completions_are_asked(gateway, fleet):
    async with gateway.client() as client:
        found = await client.completions.create(
            model=gateways.BASE,
            prompt="def f(",
            suffix="return x",
            max_tokens=4,
            stop=["\n", ";"],
            extra_body={"path": "a/b.py"},
        )
    assert found.object == "text_completion" and found.choices[0].text == "It was Ann."
    [asked] = fleet.asked
    assert asked == domain.Continuation(
        prefix="def f(",
        suffix="return x",
        path="a/b.py",
        model="base",
        sampling=domain.Sampling(max_new_tokens=4, stop=("\n", ";")),
    )


async def test_tells_log_probabilities_in_the_form_of_each_endpoint(gateway, fleet):
    unlikely = domain.Likely("Bob", b"Bob", float("-inf"))
    fleet.logprobs = (domain.TokenLogprob("Ann", b"Ann", -0.5, (unlikely,)),)
    async with gateway.client() as client:
        chat = await client.chat.completions.create(**CHAT, logprobs=True, top_logprobs=1)
        text = await client.completions.create(model="auto", prompt="It", logprobs=1)
        without = await client.chat.completions.create(**CHAT)
    [token] = chat.choices[0].logprobs.content
    assert (token.token, token.logprob, token.bytes) == ("Ann", -0.5, list(b"Ann"))
    assert (token.top_logprobs[0].token, token.top_logprobs[0].logprob) == ("Bob", -9999.0)
    told = text.choices[0].logprobs
    assert (told.tokens, told.token_logprobs, told.text_offset) == (["Ann"], [-0.5], [0])
    assert told.top_logprobs == [{"Bob": -9999.0}]
    assert without.choices[0].logprobs is None


async def test_frees_the_slot_when_the_client_does_not_wait_for_the_whole(gateway, fleet):
    fleet.holds.clear()
    async with gateway.client() as client:
        asking = asyncio.create_task(client.chat.completions.create(**CHAT))
        while not fleet.running:
            await asyncio.sleep(0.01)
        asking.cancel()
        await fleet.idle.wait()
    assert fleet.running == 0


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (
            errors.InvalidInputError("stop is too long"),
            400,
            "invalid_request_error",
            "invalid_value",
        ),
        (
            errors.CapacityError("too long"),
            400,
            "invalid_request_error",
            "too_large_for_this_model",
        ),
        (errors.PreconditionError("no chat"), 400, "invalid_request_error", "failed_precondition"),
        (errors.ForbiddenError("no"), 403, "invalid_request_error", "insufficient_permissions"),
        (errors.NotFoundError("no agent tim"), 404, "invalid_request_error", "not_found"),
        (errors.OverloadedError("all nodes are full"), 429, "server_error", "overloaded"),
        (errors.UnavailableError("no node"), 503, "server_error", "unavailable"),
        (errors.DeadlineError("too slow"), 504, "server_error", "timeout"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_tells_an_error_before_the_first_word_by_its_status(
    gateway, fleet, error, status, kind, code, stream
):
    fleet.fails = error
    found, headers, told = await gateway.send("POST", PATH, CHAT | {"stream": stream})
    assert found == status
    assert told == {"error": {"message": str(error), "type": kind, "param": None, "code": code}}
    assert ("retry-after" in headers) == (status in (429, 503, 504))


@pytest.mark.parametrize("error", [errors.IntegrityError("/secret: bad"), ZeroDivisionError("x")])
async def test_tells_nothing_of_the_inside_when_it_is_to_blame(gateway, fleet, error):
    fleet.fails = error
    status, headers, told = await gateway.send("POST", PATH, CHAT)
    assert status == 500 and told["error"]["code"] == "internal_error"
    assert "secret" not in json.dumps(told) and "Zero" not in json.dumps(told)
    assert headers["x-request-id"]


async def test_tells_how_much_is_left_and_when_to_come_back(fleet):
    limited = settings(limits={"requests_per_minute": 60})
    async with gateways.serving(limited, fleet) as gateway, gateway.client() as client:
        raw = await client.chat.completions.with_raw_response.create(**CHAT)
        assert raw.headers["x-ratelimit-limit-requests"] == "60"
        assert raw.headers["x-ratelimit-remaining-requests"] == "59"
        with pytest.raises(openai.RateLimitError) as refused:
            for _ in range(1000):
                await client.chat.completions.create(**CHAT)
    assert refused.value.code == "rate_limit_exceeded" and refused.value.type == "requests"
    assert 0 < float(refused.value.response.headers["retry-after-ms"]) <= 1000


async def test_official_client_comes_back_by_itself_when_it_was_refused(fleet):
    limited = settings(limits={"requests_per_minute": 60})
    async with gateways.serving(limited, fleet) as gateway, gateway.client(max_retries=5) as client:
        taken = 0
        while not taken:
            raw = await client.chat.completions.with_raw_response.create(**CHAT)
            taken = raw.retries_taken
        assert raw.parse().choices[0].message.content == "It was Ann."


async def test_counts_the_tokens_of_answers_when_they_are_limited(fleet):
    limited = settings(limits={"tokens_per_minute": 1})
    async with gateways.serving(limited, fleet) as gateway, gateway.client() as client:
        stream = await client.chat.completions.create(**CHAT, stream=True)
        assert [chunk async for chunk in stream]
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(**CHAT)
    assert refused.value.type == "tokens"
    assert refused.value.response.headers["x-ratelimit-remaining-tokens"] == "0"


@pytest.mark.parametrize("stream", [False, True])
async def test_counts_the_prompt_of_an_answer_that_nobody_waited_for(fleet, stream):
    fleet.hangs = True
    asked = {"model": "auto", "messages": [{"role": "user", "content": "Who? " * 100}]}
    async with (
        gateways.serving(settings(limits={"tokens_per_minute": 100}), fleet) as gateway,
        gateway.client() as client,
    ):
        asking = asyncio.create_task(client.chat.completions.create(**asked, stream=stream))
        while not fleet.running:
            await asyncio.sleep(0.01)
        asking.cancel()
        await fleet.idle.wait()
        fleet.hangs = False
        with pytest.raises(openai.RateLimitError, match="tokens per minute"):
            await client.chat.completions.create(**CHAT)


async def test_refuses_more_at_once_than_a_key_may_have(fleet):
    limited = settings(limits={"concurrent": 1})
    async with gateways.serving(limited, fleet) as gateway, gateway.client() as client:
        fleet.holds.clear()
        stream = await client.chat.completions.create(**CHAT, stream=True)
        with pytest.raises(openai.RateLimitError, match="under way at once"):
            await client.chat.completions.create(**CHAT)
        await stream.close()
        await fleet.idle.wait()
        fleet.holds.set()
        while True:
            try:
                await client.chat.completions.create(**CHAT)
                break
            except openai.RateLimitError:
                pass


async def test_lets_requests_end_and_takes_no_more_when_it_drains(fleet):
    async with asyncio.timeout(HANGING_S), contextlib.AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(gateways.serving(settings(), fleet))
        client = await stack.enter_async_context(gateway.client())
        fleet.holds.clear()
        stream = await client.chat.completions.create(**CHAT, stream=True)
        draining = asyncio.create_task(gateway.running.drain.until_idle(HANGING_S))
        while not gateway.running.drain.is_draining:
            await asyncio.sleep(0)
        status, _, told = await gateway.send("GET", "/readyz")
        assert (status, told["reason"]) == (503, "shutting down")
        assert (await gateway.send("GET", "/healthz"))[0] == 200
        with pytest.raises(openai.InternalServerError) as refused:
            await client.chat.completions.create(**CHAT)
        assert refused.value.status_code == 503
        assert refused.value.response.headers["retry-after"] == "1"
        assert not draining.done()
        fleet.holds.set()
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].choices[0].finish_reason == "stop"
        assert await draining


async def test_answers_pages_of_the_origins_that_may_ask(fleet):
    origin = "https://page.example"
    asking = {"origin": origin, "access_control_request_method": "POST"}
    allowing = settings(cors_origins=[origin])
    async with gateways.serving(allowing, fleet) as gateway:
        status, headers, _ = await gateway.send("POST", PATH, CHAT, origin=origin)
        assert status == 200 and headers["access-control-allow-origin"] == origin
        assert "x-skillmesh-card" in headers["access-control-expose-headers"]
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in asking.items())
        request = f"OPTIONS {PATH} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{head}\r\n"
        status, headers, _ = await gateway.raw(request.encode())
        assert status == 200 and headers["access-control-allow-origin"] == origin
        _, headers, _ = await gateway.send("POST", PATH, CHAT, origin="https://other.example")
        assert "access-control-allow-origin" not in headers
