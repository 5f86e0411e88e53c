"""How services end: what is under way ends well, and a second one answers what comes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import pathlib
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.inference import server
from shared import errors
from shared.pb import inference_pb2, inference_pb2_grpc, router_pb2, router_pb2_grpc
from shared.rpc import client
from shared.rpc import server as rpc_server
from tests import tiny_model
from tests.contract import addresses
from tests.contract import inference_nodes as nodes

pytestmark = pytest.mark.usefixtures("patient")

LONG_S = 60.0
"""A drain that nothing here may need."""


class SlowRouter(nodes.FakeRouter):
    """Answers when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go = asyncio.Event(), asyncio.Event()

    async def Route(
        self, request: router_pb2.RouteRequest, context: Any
    ) -> router_pb2.RouteResponse:
        self.begun.set()
        await self.go.wait()
        return await super().Route(request, context)


async def served(slow: SlowRouter, drain_s: float) -> rpc_server.Server:
    def add(grpc_server: grpc.aio.Server) -> str:
        router_pb2_grpc.add_RouterServicer_to_server(slow, grpc_server)
        return router_pb2.DESCRIPTOR.services_by_name["Router"].full_name

    running = rpc_server.Server([add], "127.0.0.1:0", drain_s=drain_s)
    await running.start()
    return running


async def test_call_under_way_ends_well_when_its_server_stops() -> None:
    slow = SlowRouter()
    running = await served(slow, LONG_S)
    address = f"127.0.0.1:{running.port}"
    async with client.channel(address) as channel, client.channel(address) as watcher:
        watching: Any = health_pb2_grpc.HealthStub(watcher).Watch(health_pb2.HealthCheckRequest())
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
        stub: Any = router_pb2_grpc.RouterStub(channel)
        call = asyncio.create_task(client.call(stub.Route, router_pb2.RouteRequest(query="q")))
        await slow.begun.wait()
        stopping = asyncio.create_task(running.stop())
        # Whoever balances hears of it while the call goes on.
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watching.cancel()
        with pytest.raises(errors.UnavailableError):
            async with client.channel(address) as late:
                await client.call(router_pb2_grpc.RouterStub(late).Route, router_pb2.RouteRequest())
        assert not stopping.done()
        slow.go.set()
        assert (await call).event_id == "event-1"
        await stopping


async def test_server_ends_when_a_call_takes_longer_than_the_drain() -> None:
    slow = SlowRouter()
    running = await served(slow, 0.05)
    async with client.channel(f"127.0.0.1:{running.port}") as channel:
        stub: Any = router_pb2_grpc.RouterStub(channel)
        call = asyncio.create_task(client.call(stub.Route, router_pb2.RouteRequest(query="q")))
        await slow.begun.wait()
        await running.stop()
        with pytest.raises(errors.SkillmeshError) as caught:
            await call
        assert caught.value.retryable


async def test_no_request_fails_when_two_nodes_are_replaced_under_load(
    tmp_path: pathlib.Path,
) -> None:
    expected = nodes.expected_of(None)
    places = [addresses.free_address() for _ in range(2)]
    answers, failed = list[str](), list[errors.SkillmeshError]()
    done = asyncio.Event()
    turn = itertools.count()
    async with (
        nodes.router_server(nodes.FakeRouter()) as router,
        contextlib.AsyncExitStack() as stack,
    ):
        channels = [await stack.enter_async_context(client.channel(one)) for one in places]
        stubs: list[Any] = [inference_pb2_grpc.InferenceStub(one) for one in channels]

        async def start(at: int) -> contextlib.AsyncExitStack:
            settings = nodes.settings_for(tmp_path / f"{at}-{next(turn)}", router, places[at])
            own = contextlib.AsyncExitStack()
            await own.enter_async_context(
                server.running(settings, lambda _: tiny_model.tiny_base(0), _nothing)
            )
            return own

        async def ask() -> inference_pb2.GenerateResponse:
            request = inference_pb2.GenerateRequest(query=nodes.QUERY, no_learning=True)
            stub = stubs[next(turn) % len(stubs)]
            return await client.call(stub.Generate, request, nodes.HANGING_S)

        async def load() -> None:
            while not done.is_set():
                try:
                    answers.append((await client.retried(ask, nodes.HANGING_S)).answer)
                except errors.SkillmeshError as error:
                    failed.append(error)

        running = [await start(at) for at in range(len(places))]
        askers = [asyncio.create_task(load()) for _ in range(4)]
        try:
            for at in range(len(places)):
                before = len(answers)
                while len(answers) < before + 8:
                    await asyncio.sleep(0.01)
                await running[at].aclose()
                running[at] = await start(at)
            before = len(answers)
            while len(answers) < before + 8:
                await asyncio.sleep(0.01)
        finally:
            done.set()
            await asyncio.gather(*askers)
            for one in running:
                await one.aclose()
    assert failed == [] and set(answers) == {expected}


async def _nothing() -> list[Any]:
    return []
