"""What the gateway tells of its requests and nodes, and who may read it."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import re

import openai
import pytest

from services.gateway import domain
from services.gateway.web import front, metrics
from shared import errors
from shared import settings as config
from shared.telemetry import tracing
from tests import traces
from tests.contract import gateways

CHAT = "/v1/chat/completions"


def chosen(folder: pathlib.Path, security: config.Security | None = None) -> config.Settings:
    return config.Settings(
        cluster=config.Cluster(state_dir=folder),
        telemetry=config.Telemetry(metrics=config.Metrics(enabled=True)),
        security=security or config.Security(),
    )


async def told(gateway: gateways.Gateway, key: str = "any") -> str:
    head = (
        f"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {key}\r\n"
    )
    status, _, content = await gateway.raw(f"{head}\r\n".encode())
    assert status == 200
    return content.decode()


def counted(text: str) -> dict[tuple[str, str], int]:
    """By route and code."""
    found = re.findall(
        r'_http_request_duration_seconds_count\{code="(\d+)",method="\w+",route="([^"]+)"\} (\S+)',
        text,
    )
    return {(route, code): int(float(count)) for code, route, count in found}


async def ask(gateway: gateways.Gateway, stream: bool = False) -> None:
    asked: list[openai.types.chat.ChatCompletionMessageParam]
    asked = [{"role": "user", "content": "Who?"}]
    async with gateway.client() as client:
        if not stream:
            await client.chat.completions.create(model=gateways.BASE, messages=asked)
            return
        pieces = await client.chat.completions.create(
            model=gateways.BASE, messages=asked, stream=True
        )
        async for _ in pieces:
            pass


async def test_requests_count_by_route_and_code_when_they_end_well_or_not(
    tmp_path: pathlib.Path,
) -> None:
    fleet = gateways.FakeFleet()
    async with gateways.serving(chosen(tmp_path), fleet) as gateway:
        await ask(gateway)
        await ask(gateway, stream=True)
        await gateway.send("GET", "/healthz")
        assert (await gateway.send("POST", CHAT, {}))[0] == 400
        for path in ("/v1/a", "/v1/b", "/no/such/page"):
            assert (await gateway.send("GET", path))[0] == 404
        fleet.fails = errors.UnavailableError("no inference node answers")
        with pytest.raises(openai.APIStatusError):
            await ask(gateway)
        text = await told(gateway)
    counts = counted(text)
    assert counts[CHAT, "200"] == 2 and counts[CHAT, "400"] == 1 and counts[CHAT, "503"] == 1
    # However many paths are made up, they are few series.
    assert sum(count for (_, code), count in counts.items() if code == "404") == 3
    assert {route for (route, code) in counts if code == "404"} <= {"/v1/{rest:path}", "other"}
    assert sum(counts.values()) == 7
    assert f'skillmesh_http_first_byte_seconds_count{{route="{CHAT}"}} 4.0' in text
    assert "skillmesh_http_requests_active 0.0" in text
    assert 'skillmesh_service{cluster="local",role="gateway"} 1.0' in text


async def test_methods_are_few_series_however_many_are_made_up() -> None:
    async def refuse(scope: front.Scope, receive: front.Receive, send: front.Send) -> None:
        await send({"type": "http.response.start", "status": 405, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def ignore(message: front.Message) -> None:
        pass

    async def nothing() -> front.Message:
        return {"type": "http.disconnect"}

    requests = metrics.Requests()
    measured = metrics.Measured(refuse, requests)
    for method in ("GET", *(f"MADE-UP-{number}" for number in range(9))):
        scope = {"type": "http", "method": method, "path": "/v1/models", "headers": []}
        await measured(scope, nothing, ignore)
    samples = [sample for metric in requests.collect() for sample in metric.samples]
    assert {one.labels["method"] for one in samples if "method" in one.labels} == {"GET", "other"}


async def test_request_counts_as_gone_when_the_client_goes_away(tmp_path: pathlib.Path) -> None:
    fleet = gateways.FakeFleet()
    fleet.holds.clear()
    body = b'{"model":"%s","stream":true,"messages":[{"role":"user","content":"Who?"}]}' % (
        gateways.BASE.encode()
    )
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    async with gateways.serving(chosen(tmp_path), fleet) as gateway, asyncio.timeout(60):
        await gateway.raw(
            f"{head}content-length: {len(body)}\r\n\r\n".encode() + body, until=b"It "
        )
        await fleet.idle.wait()
        while not (counts := counted(await told(gateway))):
            await asyncio.sleep(0.02)
    assert counts == {(CHAT, "499"): 1}


async def test_nodes_are_told_with_state_and_requests(tmp_path: pathlib.Path) -> None:
    class Fleet(gateways.FakeFleet):
        def nodes(self) -> tuple[domain.NodeState, ...]:
            [one] = super().nodes()
            return (
                domain.NodeState(
                    **vars(one)
                    | {
                        "in_flight": 2,
                        "requests": (("ok", 5), ("UnavailableError", 1)),
                        "retries": 1,
                        "status": "half-open",
                    }
                ),
            )

    async with gateways.serving(chosen(tmp_path), Fleet()) as gateway:
        text = await told(gateway)
    node = f'node="{gateways.NODE}"'
    assert f'skillmesh_node_status{{{node},status="half-open"}} 1.0' in text
    assert f'skillmesh_node_status{{{node},status="ready"}} 0.0' in text
    assert f"skillmesh_node_in_flight{{{node}}} 2.0" in text
    assert f'skillmesh_node_requests_total{{{node},outcome="ok"}} 5.0' in text
    assert f"skillmesh_node_retries_total{{{node}}} 1.0" in text


async def test_metrics_are_for_the_cluster_alone_when_tokens_are_on(
    tmp_path: pathlib.Path,
) -> None:
    security = gateways.tokens(tmp_path)
    async with gateways.serving(chosen(tmp_path, security), gateways.FakeFleet()) as gateway:
        for role in ("node", "trainer", "operator"):
            assert "skillmesh_http_requests_active" in await told(gateway, role)
        for role in ("user", "teacher", "peer"):
            status, _, _ = await gateway.send("GET", "/metrics", authorization=f"Bearer {role}")
            assert status == 403, role
        assert (await gateway.send("GET", "/metrics"))[0] == 401


async def test_nothing_is_told_when_metrics_are_off(tmp_path: pathlib.Path) -> None:
    off = config.Settings(cluster=config.Cluster(state_dir=tmp_path))
    async with gateways.serving(off, gateways.FakeFleet()) as gateway:
        with contextlib.suppress(ValueError):  # What it says is no JSON.
            assert (await gateway.send("GET", "/metrics"))[0] == 404


@pytest.mark.parametrize("given", [True, False])
async def test_calls_for_a_request_are_in_its_trace(tmp_path: pathlib.Path, given: bool) -> None:
    traces.kept().clear()
    inside: list[str] = []

    class Fleet(gateways.FakeFleet):
        def _note(self, asked: domain.Asked) -> None:
            super()._note(asked)
            inside.append(tracing.traceparent())

    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"} if given else {}
    async with gateways.serving(chosen(tmp_path), Fleet()) as gateway:
        body = {"model": gateways.BASE, "messages": [{"role": "user", "content": "Who?"}]}
        for stream in (False, True):
            with contextlib.suppress(ValueError):
                await gateway.send("POST", CHAT, body | {"stream": stream}, **headers)
    assert len(inside) == 2 and all(inside)
    assert ({one.split("-")[1] for one in inside} == {trace}) is given
    span = traces.by_name()[f"HTTP POST {CHAT}"]
    assert (span.attributes or {})["http.response.status_code"] == 200
