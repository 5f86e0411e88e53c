"""Who may ask the gateway what, with which keys, and with whose power it calls the services."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import ssl
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx2
import openai
import pytest

from shared import settings as config
from shared.pb import agents_pb2, agents_pb2_grpc, factory_pb2, factory_pb2_grpc, types_pb2
from shared.rpc import server as rpc_server
from shared.security import callers, certs
from shared.security import protection as protections
from tests.contract import addresses, gateways

ASKED: Any = [{"role": "user", "content": "Who built it?"}]
CHAT = {"model": "auto", "messages": ASKED}
PATH = "/v1/chat/completions"


class Factory(factory_pb2_grpc.FactoryServicer):
    """Keeps what it was told, and by whom."""

    def __init__(self) -> None:
        self.given: list[factory_pb2.GiveAnswerFeedbackRequest] = []
        self.shown: list[str] = []

    async def GiveFeedback(
        self, request: factory_pb2.GiveAnswerFeedbackRequest, context: Any
    ) -> factory_pb2.GiveAnswerFeedbackResponse:
        self.given.append(request)
        self.shown.append(dict(context.invocation_metadata()).get("authorization", ""))
        if request.is_right:
            return factory_pb2.GiveAnswerFeedbackResponse(reason="it was right")
        return factory_pb2.GiveAnswerFeedbackResponse(task_id="task-1")

    async def FindTask(
        self, request: factory_pb2.FindTaskRequest, context: Any
    ) -> types_pb2.TrainingTask:
        return types_pb2.TrainingTask(id=f"of-{request.event_id}")


class Agents(agents_pb2_grpc.AgentsServicer):
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[agents_pb2.GiveFeedbackRequest] = []

    async def GiveFeedback(
        self, request: agents_pb2.GiveFeedbackRequest, context: Any
    ) -> agents_pb2.GiveFeedbackResponse:
        self.told.append(request)
        return agents_pb2.GiveFeedbackResponse(accepted=1, queued=1)


class Services:
    """A factory and a node's agents behind one gateway."""

    def __init__(self) -> None:
        self.factory, self.agents = Factory(), Agents()
        self.fleet = gateways.FakeFleet()
        self.gateway: Any = None


@contextlib.asynccontextmanager
async def running(security: config.Security) -> AsyncIterator[Services]:
    found = Services()

    def add_factory(server: grpc.aio.Server) -> str:
        factory_pb2_grpc.add_FactoryServicer_to_server(found.factory, server)
        return factory_pb2.DESCRIPTOR.services_by_name["Factory"].full_name

    def add_agents(server: grpc.aio.Server) -> str:
        agents_pb2_grpc.add_AgentsServicer_to_server(found.agents, server)
        return agents_pb2.DESCRIPTOR.services_by_name["Agents"].full_name

    settings = config.Settings(security=security)
    guarded = protections.Protection(admitted=callers.Callers(security.tokens))
    behind = rpc_server.Server([add_factory, add_agents], "127.0.0.1:0", guarded)
    await behind.start()
    address = f"127.0.0.1:{behind.port}"
    settings = settings.model_copy(
        update={
            "factory": config.Factory(address=address),
            "inference": config.Inference(address=address),
            "router": config.Router(address=addresses.free_address()),
            "card_store": config.CardStore(address=addresses.free_address()),
        }
    )
    try:
        async with gateways.serving(settings, found.fleet) as found.gateway:
            yield found
    finally:
        await behind.stop()


@pytest.fixture
async def services(tmp_path: pathlib.Path) -> AsyncIterator[Services]:
    async with running(gateways.tokens(tmp_path)) as found:
        yield found


@pytest.mark.parametrize("key", ["wrong", "Bearer", "user user", "ÜÜ", ""])
async def test_turns_away_a_key_that_nobody_has(services, key):
    header = f"Bearer {key}".encode().decode("latin-1")
    status, headers, told = await services.gateway.send("POST", PATH, CHAT, authorization=header)
    assert (status, told["error"]["code"]) == (401, "invalid_api_key")
    assert headers["www-authenticate"] == "bearer"
    assert not services.fleet.asked


async def test_official_client_says_that_its_key_is_wrong(services):
    async with services.gateway.client("sk-wrong") as client:
        with pytest.raises(openai.AuthenticationError) as refused:
            await client.chat.completions.create(**CHAT)
        assert refused.value.code == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


async def test_looks_at_no_body_of_a_stranger(services):
    status, _, told = await services.gateway.send("POST", PATH, b"{ no json")
    assert status == 401 and "API key" in told["error"]["message"]


async def test_says_where_there_is_no_endpoint_to_nobody_but_those_it_knows(services):
    assert (await services.gateway.send("GET", "/v1/nothing"))[0] == 401
    found = await services.gateway.send("GET", "/v1/nothing", authorization="Bearer user")
    assert found[0] == 404
    assert (await services.gateway.send("GET", "/healthz"))[0] == 200


async def test_asks_with_the_power_of_whoever_asks(services):
    async with services.gateway.client("user") as client:
        await client.chat.completions.create(**CHAT)
        stream = await client.chat.completions.create(**CHAT, stream=True)
        assert [chunk async for chunk in stream]
    assert services.fleet.shown == ["Bearer user", "Bearer user"]


async def test_refuses_what_a_role_may_not(services):
    load = {"lora_name": "ann"}
    tell = {"question": "Who?", "rating": "right"}
    may = {
        PATH: (CHAT, {"node", "trainer", "operator", "user", "teacher"}),
        "/v1/load_lora_adapter": (load, {"operator"}),
        "/v1/unload_lora_adapter": (load, {"operator"}),
        "/v1/feedback": (tell, {"operator", "teacher"}),
    }
    for path, (body, roles) in may.items():
        for role in gateways.ROLES:
            status, _, told = await services.gateway.send(
                "POST", path, body, authorization=f"Bearer {role}"
            )
            assert (status != 403) == (role in roles), (path, role, told)
            if status == 403:
                assert told["error"]["code"] == "insufficient_permissions"


async def test_gives_feedback_to_the_factory_in_the_name_of_whoever_gives_it(services):
    wrong = {"question": "Who?", "answer": "Bob.", "rating": "wrong", "correction": "Ann."}
    status, _, told = await services.gateway.send(
        "POST", "/v1/feedback", wrong | {"card": "c@1"}, authorization="Bearer teacher"
    )
    assert status == 200 and told["task_id"] == "task-1" and told["agent"] is None
    [given] = services.factory.given
    assert (given.question, given.answer, given.card) == ("Who?", "Bob.", "c@1")
    assert (given.is_right, given.correction) == (False, "Ann.") and given.idempotency_key
    assert services.factory.shown == ["Bearer teacher"]
    assert not services.agents.told


async def test_gives_the_right_answer_to_the_agent_that_is_named(services):
    right = {"question": "Who?", "answer": "Ann.", "rating": "right", "agent": "tim"}
    status, _, told = await services.gateway.send(
        "POST", "/v1/feedback", right, authorization="Bearer teacher"
    )
    assert status == 200 and (told["reason"], told["agent_queued"]) == ("it was right", 1)
    [told_agent] = services.agents.told
    assert told_agent.agent == "tim"
    assert [(one.question, one.answer) for one in told_agent.pairs] == [("Who?", "Ann.")]


async def test_names_the_task_of_a_gap_where_it_is_known_already(services):
    services.fleet.answer_with = dataclasses.replace(
        services.fleet.answer_with, dissonance=True, event_id="event-1"
    )
    async with services.gateway.client("user") as client:
        while True:
            # The factory is waited for a moment only: on a busy machine it may take longer.
            raw = await client.chat.completions.with_raw_response.create(**CHAT)
            if "x-skillmesh-task" in raw.headers:
                break
            assert raw.headers["x-skillmesh-event"] == "event-1"
    assert raw.headers["x-skillmesh-task"] == "of-event-1"
    assert raw.parse().model_extra["skillmesh"]["task_id"] == "of-event-1"


async def test_limits_each_key_for_itself(tmp_path):
    security = gateways.tokens(tmp_path)
    settings = config.Settings(
        security=security, gateway=config.Gateway(limits={"requests_per_minute": 1})
    )
    async with (
        gateways.serving(settings, gateways.FakeFleet()) as gateway,
        gateway.client("user") as one,
        gateway.client("teacher") as other,
    ):
        await one.chat.completions.create(**CHAT)
        with pytest.raises(openai.RateLimitError):
            await one.chat.completions.create(**CHAT)
        await other.chat.completions.create(**CHAT)


async def test_a_key_has_one_limit_however_its_header_is_spelt(tmp_path):
    settings = config.Settings(
        security=gateways.tokens(tmp_path),
        gateway=config.Gateway(limits={"requests_per_minute": 1}),
    )
    async with gateways.serving(settings, gateways.FakeFleet()) as gateway:
        seen = [
            (await gateway.send("POST", PATH, CHAT, authorization=spelt))[0]
            for spelt in ("Bearer user", "bearer user", "BEARER user", "Bearer   user")
        ]
    assert seen == [200, 429, 429, 429]


async def test_takes_any_key_and_none_when_no_tokens_are_configured():
    async with running(config.Security()) as services:
        async with services.gateway.client("sk-whatever") as client:
            await client.chat.completions.create(**CHAT)
        assert (await services.gateway.send("POST", PATH, CHAT))[0] == 200


async def test_serves_over_tls_where_a_certificate_is_configured(tmp_path):
    tokens = certs.make(tmp_path, [])
    tls = config.Tls(
        certificate=tmp_path / "service.pem",
        key=tmp_path / "service.key",
        authority=tmp_path / "authority.pem",
    )
    security = config.Security(tls=tls, tokens=tmp_path / "tokens.json")
    fleet = gateways.FakeFleet()
    trusted = ssl.create_default_context(cafile=tmp_path / "authority.pem")
    async with (
        gateways.serving(config.Settings(security=security), fleet) as gateway,
        httpx2.AsyncClient(verify=trusted) as believing,
        gateway.client(tokens["user"], http_client=believing) as client,
    ):
        assert gateway.url.startswith("https://")
        found = await client.chat.completions.create(**CHAT)
        assert found.choices[0].message.content == "It was Ann."
        async with gateway.client(tokens["user"]) as stranger:
            with pytest.raises(openai.APIConnectionError):
                await stranger.chat.completions.create(**CHAT)
