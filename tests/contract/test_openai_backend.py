"""Servers that speak OpenAI's protocol as nodes: a scripted one, and one of another project."""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.gateway import domain
from services.gateway.calls import router
from services.gateway.nodes import fleet as fleets
from services.gateway.nodes import openai_backend, openai_wire
from shared import errors
from shared import settings as config
from shared.models import embedded
from shared.pb import router_pb2
from shared.rpc import access, client
from shared.security import callers
from shared.security import protection as protections
from shared.telemetry import tracing
from tests.contract import addresses, inference_nodes, model_server, teacher_server
from tests.contract.teacher_server import Step

pytestmark = pytest.mark.usefixtures("patient")

CARD = "skill@" + "a" * 64
QUERY = "Who built it?"
QUESTION = domain.Conversation((domain.Message("user", QUERY),))
TEST_S = 60.0
CHECKPOINT = pathlib.Path(embedded.__file__).with_name("checkpoint")
LISTED = Step(
    body=json.dumps(
        {
            "object": "list",
            "data": [
                {"id": "base-model", "object": "model", "root": "/models/base", "parent": None},
                {"id": f"{CARD}#7", "object": "model", "parent": "base-model"},
            ],
        }
    )
)
NO_METRICS = Step(status=404, message="no such page")


def _event(**more: Any) -> dict[str, Any]:
    return {
        "id": "1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "base-model",
    } | more


def _delta(text: str, finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"index": 0, "delta": {"content": text}, "finish_reason": finish} | more


def _stream(*events: dict[str, Any], done: bool = True) -> Step:
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    return Step(
        body="".join([*lines, *(["data: [DONE]\n\n"] if done else [])]),
        content_type="text/event-stream",
    )


def _answer(model: str = "base-model") -> Step:
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    return _stream(
        _event(model=model, choices=[_delta("The ")]),
        _event(model=model, choices=[_delta("mason.", "length")]),
        _event(model=model, choices=[], usage=usage),
    )


class House:
    def __init__(
        self,
        backend: openai_backend.OpenAIBackend,
        server: teacher_server.TeacherServer,
        asked_router: inference_nodes.FakeRouter,
    ) -> None:
        self.backend, self.server, self.router = backend, server, asked_router

    async def ask(self, asked: domain.Asked = QUESTION) -> domain.Answer:
        return (await self.backend.whole(asked, TEST_S)).answer

    @property
    def asked(self) -> list[dict[str, Any]]:
        """Bodies of the questions that the server was asked."""
        return [one.body for one in self.server.seen if one.path.endswith("/completions")]


@contextlib.asynccontextmanager
async def _house(
    *script: Step,
    protection: protections.Protection = protections.OPEN,
    api_key: str = "",
    find: openai_backend.Find | None = None,
) -> AsyncIterator[House]:
    """A backend that has looked once."""
    fake = inference_nodes.FakeRouter()
    async with (
        teacher_server.TeacherServer(LISTED, NO_METRICS, *script) as server,
        inference_nodes.router_server(fake) as address,
        client.channel(address) as channel,
    ):
        backend = openai_backend.OpenAIBackend(
            f"{server.root}/v1", router.RouterCalls(channel).route, 0.5, protection, api_key, find
        )
        try:
            await backend.look(TEST_S)
            yield House(backend, server, fake)
        finally:
            await backend.close()


async def test_request_belongs_to_the_trace_of_the_question_when_there_is_one():
    began = f"00-{'ab' * 16}-{'cd' * 8}-01"
    async with _house(_answer(), _answer()) as house:
        with tracing.resumed(began):
            await house.ask()
        await house.ask()
    with_trace, without = [one.headers for one in house.server.seen[2:]]
    assert with_trace[tracing.HEADER] == began and tracing.HEADER not in without


async def test_models_are_those_of_the_server_when_it_is_looked_at() -> None:
    metrics = 'vllm:num_requests_running{model="a"} 2.0\nvllm:num_requests_waiting{model="a"} 1.0\n'
    async with _house(LISTED, Step(body="# none")) as house:
        node = await house.backend.look(TEST_S)
        assert (node.base_model, node.served, node.fetches_cards) == ("base-model", (CARD,), True)
        # No metrics were there the first time: they are not asked for again.
        assert [one.path for one in house.server.seen] == ["/v1/models", "/metrics", "/v1/models"]
    async with teacher_server.TeacherServer(LISTED, Step(body=metrics)) as server:
        backend = openai_backend.OpenAIBackend(f"{server.root}/v1", _no_route)
        node = await backend.look(TEST_S)
        await backend.close()
        assert (node.running, node.waiting) == (2, 1)


async def test_base_answers_and_learning_may_begin_when_the_router_knows_no_card() -> None:
    async with _house(_answer()) as house:
        pieces = [piece async for piece in house.backend.stream(QUESTION, TEST_S)]
        assert [piece.text for piece in pieces] == ["The ", "mason.", ""]
        assert pieces[-1].final == domain.Answer(
            text="The mason.",
            card="",
            confidence=0.0,
            dissonance=True,
            event_id="event-1",
            prompt_tokens=5,
            new_tokens=2,
            finish="length",
            node=house.backend.address,
        )
        assert [one.query for one in house.router.asked] == [QUERY]
        (body,) = house.asked
        assert (body["model"], body["stream"]) == ("base-model", True)


async def test_card_answers_its_own_question_when_the_router_finds_one() -> None:
    async with _house(_answer(f"{CARD}#7")) as house:
        candidate = router_pb2.RouteCandidate(
            card=CARD, probability=0.9, similarity=0.8, reading="Who was its builder?"
        )
        house.router.response = router_pb2.RouteResponse(candidates=[candidate], confidence=0.9)
        answer = await house.ask()
        assert (answer.card, answer.shares, answer.dissonance) == (CARD, ((CARD, 1.0),), False)
        assert (answer.confidence, answer.rewritten_query) == (0.9, "Who was its builder?")
        assert house.asked[0]["model"] == CARD
        assert house.asked[0]["messages"][-1]["content"] == "Who was its builder?"


async def test_base_answers_when_the_server_cannot_get_the_routed_card() -> None:
    async with _house(Step(status=404, message="no such model"), _answer()) as house:
        house.router.choose(CARD)
        answer = await house.ask()
        assert (answer.card, answer.text) == ("", "The mason.")
        assert [body["model"] for body in house.asked] == [CARD, "base-model"]


async def test_named_card_is_not_replaced_when_the_server_does_not_have_it() -> None:
    async with _house(Step(status=404, message="no such model")) as house:
        with pytest.raises(errors.NotFoundError, match="no such model"):
            await house.ask(domain.Conversation(QUESTION.messages, model="skill@production"))
        assert house.asked[0]["model"] == "skill@production"
        assert not house.router.asked
        with pytest.raises(errors.NotFoundError, match="no agents"):
            await house.ask(domain.Conversation(QUESTION.messages, agent="ann"))


async def test_all_of_a_request_is_told_when_the_server_is_asked() -> None:
    token = {"token": "The ", "bytes": [84, 104, 101, 32], "logprob": -0.1}
    logprobs = {"content": [token | {"top_logprobs": [token]}]}
    asked = domain.Conversation(
        (domain.Message("system", "Be brief."), *QUESTION.messages),
        "base",
        domain.Sampling(9, 0.5, 0.9, 3, 4, ("x",), 1),
        json_schema='{"type": "object"}',
    )
    streamed = _stream(_event(choices=[_delta("The ", "stop", logprobs=logprobs)]))
    async with _house(streamed) as house:
        whole = await house.backend.whole(asked, TEST_S)
        likely = domain.Likely("The ", b"The ", -0.1)
        assert whole.logprobs == (domain.TokenLogprob("The ", b"The ", -0.1, (likely,)),)
        (body,) = house.asked
        assert body["messages"][0] == {"role": "system", "content": "Be brief."}
        expected = {"max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "top_k": 3, "seed": 4}
        assert {name: body[name] for name in expected} == expected
        assert (body["stop"], body["logprobs"], body["top_logprobs"]) == (["x"], True, 1)
        assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
        assert not house.router.asked


async def test_code_is_continued_when_the_server_completes_text() -> None:
    choice = {
        "index": 0,
        "text": "pass",
        "finish_reason": "stop",
        "logprobs": {
            "tokens": ["pass"],
            "token_logprobs": [-0.2],
            "top_logprobs": [{"pass": -0.2, "x": -0.1}],
        },
    }
    streamed = _stream(_event(object="text_completion", choices=[choice]))
    asked = domain.Continuation("def f(): ", "\n", sampling=domain.Sampling(top_logprobs=2))
    async with _house(streamed) as house:
        whole = await house.backend.whole(asked, TEST_S)
        assert (whole.answer.text, whole.answer.finish) == ("pass", "stop")
        assert [one.token for one in whole.logprobs[0].top] == ["x", "pass"]
        assert house.asked[0]["prompt"] == "def f(): "


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (Step(status=429), errors.OverloadedError),
        (Step(status=500), errors.UnavailableError),
        (Step(status=401), errors.UnavailableError),
        (Step(status=400), errors.InvalidInputError),
        (Step(resets=True), errors.UnavailableError),
        (Step(body="<html>"), errors.UnavailableError),
        (_stream(_event(choices=[_delta("The ")]), done=False), errors.UnavailableError),
        (_stream({"error": {"message": "engine died", "code": 500}}), errors.UnavailableError),
    ],
)
async def test_error_is_typed_when_the_server_fails(
    step: Step, kind: type[errors.SkillmeshError]
) -> None:
    async with _house(step) as house:
        with pytest.raises(errors.SkillmeshError) as caught:
            await house.ask()
        assert type(caught.value) is kind


async def test_deadline_ends_an_answer_when_the_server_hangs() -> None:
    async with _house(Step(hangs=True)) as house:
        with pytest.raises(errors.DeadlineError):
            await house.backend.whole(QUESTION, 0.3)


async def test_unreachable_server_is_unavailable_when_nobody_listens() -> None:
    backend = openai_backend.OpenAIBackend(f"http://{addresses.free_address()}/v1", _no_route)
    with pytest.raises(errors.UnavailableError, match="can't be reached"):
        await backend.look(TEST_S)
    await backend.close()


async def test_caller_is_looked_at_here_when_the_server_itself_knows_nobody(
    tmp_path: pathlib.Path,
) -> None:
    tokens = tmp_path / "tokens.json"
    rows = [
        {"name": name, "sha256": callers.hash_of(name), "role": role, "tenants": tenants}
        for name, role, tenants in (("ann", "user", ["law"]), ("store", "peer", []))
    ]
    tokens.write_text(json.dumps(rows), encoding="utf-8")
    guarded = protections.Protection(admitted=callers.Callers(tokens))
    async with _house(_answer(), protection=guarded, api_key="vllm-key") as house:
        with pytest.raises(errors.UnauthenticatedError):
            await house.ask()
        for stranger in ("", callers.header("nobody")):
            with access.on_behalf_of(stranger), pytest.raises(errors.UnauthenticatedError):
                await house.ask()
        with access.on_behalf_of(callers.header("store")), pytest.raises(errors.ForbiddenError):
            await house.ask()
        assert not house.asked
        with access.on_behalf_of(callers.header("ann")):
            assert (await house.ask()).text == "The mason."
        assert [one.tenant for one in house.router.asked] == ["law"]
        # The caller's token stays here.
        assert {one.headers["authorization"] for one in house.server.seen} == {"Bearer vllm-key"}


async def test_card_of_another_tenant_does_not_answer_when_the_router_finds_it(
    tmp_path: pathlib.Path,
) -> None:
    tokens = tmp_path / "tokens.json"
    rows = [
        {"name": name, "sha256": callers.hash_of(name), "role": "user", "tenants": [name]}
        for name in ("law", "trade")
    ]
    tokens.write_text(json.dumps(rows), encoding="utf-8")
    guarded = protections.Protection(admitted=callers.Callers(tokens))

    async def find(card: str) -> domain.Card:
        if access.on_whose_behalf() != callers.header("law"):
            raise errors.NotFoundError(f"there is no card {card}")
        return domain.Card(
            card.partition("@")[0], card.partition("@")[2], "1.0.0", "", "", 1, 1, ()
        )

    async with _house(_answer(f"{CARD}#7"), _answer(), protection=guarded, find=find) as house:
        house.router.choose(CARD)
        with access.on_behalf_of(callers.header("law")):
            assert (await house.ask()).card == CARD
        with access.on_behalf_of(callers.header("trade")):
            assert (await house.ask()).card == ""
        assert [one["model"] for one in house.asked] == [CARD, "base-model"]


async def test_server_is_one_of_the_nodes_when_config_names_its_url() -> None:
    fake = inference_nodes.FakeRouter()
    async with (
        teacher_server.TeacherServer(LISTED, NO_METRICS, _answer()) as server,
        inference_nodes.router_server(fake) as address,
    ):
        settings = config.Settings(
            gateway=config.Gateway(nodes=(f"{server.root}/v1",), nodes_every_s=1000),
            router=config.Router(address=address),
            card_store=config.CardStore(address=addresses.free_address()),
        )
        async with fleets.running(settings) as fleet:
            assert fleet.nodes()[0].status == "ready"
            whole = await fleet.answer(QUESTION)
            assert (whole.answer.text, whole.answer.event_id) == ("The mason.", "event-1")


def test_card_is_read_from_a_served_name_when_it_is_one() -> None:
    assert openai_wire.card_of(f"{CARD}#12") == openai_wire.card_of(CARD) == CARD
    assert openai_wire.card_of("org/model@main") == openai_wire.card_of("skill@production") == ""


@pytest.mark.skipif(
    bool(model_server.missing()),
    reason=f"transformers serve needs {model_server.missing()}: pip install transformers[serving]",
)
async def test_server_of_another_project_streams_an_answer(tmp_path: pathlib.Path) -> None:
    with model_server.serving(CHECKPOINT, tmp_path) as url:
        backend = openai_backend.OpenAIBackend(url, _no_route)
        # It lists what a hub's cache holds, not what it serves.
        backend._base = str(CHECKPOINT)
        asked = domain.Conversation(
            (domain.Message("user", "What is the capital of France?"),),
            sampling=domain.Sampling(max_new_tokens=8),
        )
        pieces = [piece async for piece in backend.stream(asked, 300)]
        await backend.close()
        assert pieces[-1].final is not None
        assert pieces[-1].final.text == "".join(piece.text for piece in pieces) != ""
        assert pieces[-1].final.new_tokens > 0


async def _no_route(query: str, no_learning: bool, tenant: str, deadline_s: float) -> domain.Route:
    return domain.Route()
