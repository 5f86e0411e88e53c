"""gRPC calls as metrics and spans, on a real server and a real channel."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import prometheus_client
import pytest

from shared import errors
from shared.pb import inference_pb2, inference_pb2_grpc
from shared.rpc import client
from shared.rpc import server as rpc_server
from shared.telemetry import tracing
from tests import traces

SERVICE = "skillmesh.v1.Inference"


class Node(inference_pb2_grpc.InferenceServicer):
    """Answers, refuses, breaks and hangs, as the question says."""

    def __init__(self) -> None:
        self.traces: list[str] = []
        self.hangs = asyncio.Event()

    async def Generate(self, request: Any, context: Any) -> inference_pb2.GenerateResponse:
        self.traces.append(tracing.traceparent())
        match request.query:
            case "refuse":
                raise errors.NotFoundError("no such thing")
            case "break":
                raise ZeroDivisionError
            case "hang":
                self.hangs.set()
                await asyncio.Event().wait()
        return inference_pb2.GenerateResponse(answer="yes")

    async def GenerateStream(
        self, request: Any, context: Any
    ) -> AsyncIterator[inference_pb2.GenerateChunk]:
        self.traces.append(tracing.traceparent())
        yield inference_pb2.GenerateChunk(text="a")
        if request.query == "refuse":
            raise errors.OverloadedError("too much")
        if request.query == "hang":
            self.hangs.set()
            await asyncio.Event().wait()
        yield inference_pb2.GenerateChunk(text="b")

    async def GetNodeStatus(self, request: Any, context: Any) -> inference_pb2.NodeStatus:
        self.traces.append(tracing.traceparent())
        return inference_pb2.NodeStatus()


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[tuple[Node, Any, prometheus_client.CollectorRegistry]]:
    node = Node()

    def add(server: grpc.aio.Server) -> str:
        inference_pb2_grpc.add_InferenceServicer_to_server(node, server)
        return SERVICE

    server = rpc_server.Server([add], "127.0.0.1:0")
    await server.start()
    figures = prometheus_client.CollectorRegistry()
    figures.register(server.calls)
    try:
        async with client.channel(f"127.0.0.1:{server.port}") as channel:
            assert await client.is_serving(channel, 10)
            yield node, inference_pb2_grpc.InferenceStub(channel), figures
    finally:
        await server.stop()


def asked(query: str) -> inference_pb2.GenerateRequest:
    return inference_pb2.GenerateRequest(query=query)


def count(figures: prometheus_client.CollectorRegistry, method: str, code: str) -> float:
    labels = {"service": SERVICE, "method": method, "code": code}
    return figures.get_sample_value("skillmesh_request_duration_seconds_count", labels) or 0.0


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("query", "code"),
    [("any", "OK"), ("refuse", "NOT_FOUND"), ("break", "INTERNAL")],
)
async def test_unary_call_counts_once_with_its_code_however_it_ends(query: str, code: str) -> None:
    async with running() as (_, stub, figures):
        with contextlib.suppress(grpc.aio.AioRpcError):
            await stub.Generate(asked(query))
        await until(lambda: count(figures, "Generate", code))
        assert count(figures, "Generate", code) == 1
        assert b"skillmesh_requests_active" in prometheus_client.generate_latest(figures)
        active = {"service": SERVICE, "method": "Generate"}
        assert figures.get_sample_value("skillmesh_requests_active", active) == 0


@pytest.mark.parametrize(("query", "code"), [("any", "OK"), ("refuse", "RESOURCE_EXHAUSTED")])
async def test_stream_counts_once_with_its_code_however_it_ends(query: str, code: str) -> None:
    async with running() as (_, stub, figures):
        with contextlib.suppress(grpc.aio.AioRpcError):
            assert [item.text async for item in stub.GenerateStream(asked(query))] == ["a", "b"]
        await until(lambda: count(figures, "GenerateStream", code))
        assert count(figures, "GenerateStream", code) == 1


@pytest.mark.parametrize("method", ["Generate", "GenerateStream"])
async def test_call_counts_as_cancelled_when_the_caller_goes_away(method: str) -> None:
    async with running() as (node, stub, figures):
        call = getattr(stub, method)(asked("hang"))
        reading = asyncio.ensure_future(call.read() if method.endswith("Stream") else call)
        async with asyncio.timeout(30):
            await node.hangs.wait() if method == "Generate" else await reading
        active = {"service": SERVICE, "method": method}
        assert figures.get_sample_value("skillmesh_requests_active", active) == 1
        call.cancel()
        await until(lambda: count(figures, method, "CANCELLED"))
        assert figures.get_sample_value("skillmesh_requests_active", active) == 0


async def test_health_checks_are_not_counted() -> None:
    async with running() as (_, _, figures):
        assert b"Health" not in prometheus_client.generate_latest(figures)


async def test_call_belongs_to_the_callers_trace() -> None:
    traces.kept().clear()
    async with running() as (node, stub, _):
        with tracing.span("question"):
            outside = tracing.traceparent()
            await stub.Generate(asked("any"))
            assert [item.text async for item in stub.GenerateStream(asked("any"))] == ["a", "b"]
            await stub.GetNodeStatus(inference_pb2.GetNodeStatusRequest())
    assert {inside.split("-")[1] for inside in node.traces} == {outside.split("-")[1]}
    assert len(set(node.traces)) == 3
    spans = traces.by_name()
    parent = spans["question"].context
    for method in ("Generate", "GenerateStream", "GetNodeStatus"):
        found = spans[f"{SERVICE}/{method}"]
        assert found.parent is not None and parent is not None
        assert found.parent.span_id == parent.span_id


async def test_question_begins_a_trace_and_polling_begins_none() -> None:
    traces.kept().clear()
    async with running() as (node, stub, _):
        await stub.Generate(asked("any"))
        await stub.GetNodeStatus(inference_pb2.GetNodeStatusRequest())
    assert node.traces[0] and not node.traces[1]
    assert list(traces.by_name()) == [f"{SERVICE}/Generate"]


async def test_two_questions_at_once_do_not_mix_their_traces() -> None:
    traces.kept()
    async with running() as (node, stub, _):

        async def ask() -> str:
            with tracing.span("question"):
                await stub.Generate(asked("any"))
                return tracing.traceparent().split("-")[1]

        told = await asyncio.gather(*[ask() for _ in range(20)])
    assert sorted(told) == sorted(inside.split("-")[1] for inside in node.traces)
    assert len(set(told)) == 20


async def test_span_says_how_a_call_failed_and_not_why() -> None:
    traces.kept().clear()
    async with running() as (_, stub, _):
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Generate(asked("refuse"))
    span = traces.by_name()[f"{SERVICE}/Generate"]
    assert not span.status.is_ok and span.status.description == "NOT_FOUND"
    assert "no such thing" not in span.to_json()


async def test_a_malformed_traceparent_begins_a_trace_of_its_own() -> None:
    traces.kept()
    async with running() as (node, stub, _):
        for wrong in ("", "x", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "é", "00-" * 2000):
            metadata = ((tracing.HEADER, wrong),) if wrong.isascii() else ()
            await stub.Generate(asked("any"), metadata=metadata)
    assert len(set(node.traces)) == 5 and "" not in node.traces
