"""The gateway's figures for Prometheus: requests over HTTP, and the nodes behind it.

The outermost middleware measures every request and begins its trace; `/metrics` tells what came of
it, to whom `security` knows as part of the cluster.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any

import fastapi
import prometheus_client
from opentelemetry import context as contexts
from opentelemetry import trace
from prometheus_client import core, registry
from starlette import responses

from services.gateway import domain
from services.gateway.openai_api import models, refusals
from services.gateway.web import front
from shared import errors
from shared import settings as config
from shared.security import callers
from shared.telemetry import metrics, tracing

DURATION = metrics.histogram(
    "skillmesh_http_request_duration_seconds",
    "From an HTTP request to the end of its answer",
    metrics.SHORT_S,
    *("method", "route", "code"),
)
FIRST = metrics.histogram(
    "skillmesh_http_first_byte_seconds",
    "From an HTTP request to the first part of its answer's body",
    metrics.SHORT_S,
    "route",
)
ACTIVE = metrics.gauge("skillmesh_http_requests_active", "HTTP requests under way")
NODE = metrics.gauge(
    "skillmesh_node_status",
    "1 at the state of each inference node: ready, open (left alone), half-open, gone",
    *("node", "status"),
)
IN_FLIGHT = metrics.gauge("skillmesh_node_in_flight", "Requests at a node", "node")
REQUESTS = metrics.counter(
    "skillmesh_node_requests", "Requests to a node by how they ended", "node", "outcome"
)
RETRIES = metrics.counter(
    "skillmesh_node_retries", "Requests that went on elsewhere after this node had failed", "node"
)
FAMILIES = (DURATION, FIRST, ACTIVE, NODE, IN_FLIGHT, REQUESTS, RETRIES)
PATH = "/metrics"
_METHOD = "Gateway/GetMetrics"
_STATES = ("ready", "open", "half-open", "gone")
_CANCELLED = 499
"""As nginx tells it: the client went away."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Those that are told by their name: a client may make up any, and each would be a series."""
_NOT_MEASURED = (PATH, "/healthz", "/readyz")


class Requests(registry.Collector):
    """Counts requests."""

    def __init__(self) -> None:
        """Begins with none."""
        self.durations, self.firsts = DURATION.histogram(), FIRST.histogram()
        self.active = 0

    def describe(self) -> Iterable[core.Metric]:
        """Nothing, as everything that is read."""
        return ()

    def collect(self) -> Iterator[core.Metric]:
        """All of them."""
        yield from self.durations.collect()
        yield from self.firsts.collect()
        yield ACTIVE.of(self.active)


class Measured:
    """ASGI middleware: every HTTP request but those of probes."""

    def __init__(self, app: front.App, requests: Requests) -> None:
        """Takes what is behind it, and who counts."""
        self._app, self._requests = app, requests

    async def __call__(self, scope: front.Scope, receive: front.Receive, send: front.Send) -> None:
        """Handles one connection's request."""
        if scope["type"] != "http" or scope["path"] in _NOT_MEASURED:
            await self._app(scope, receive, send)
            return
        request = _Request(send)
        parent = tracing.parent(_header(scope, tracing.HEADER))
        self._requests.active += 1
        span = trace.get_tracer("skillmesh").start_span(
            f"HTTP {scope['method']}", context=parent, kind=trace.SpanKind.SERVER
        )
        token = contexts.attach(trace.set_span_in_context(span, parent))
        try:
            await self._app(scope, receive, request)
        finally:
            contexts.detach(token)
            self._requests.active -= 1
            self._end(scope, request, span)

    def _end(self, scope: front.Scope, request: _Request, span: trace.Span) -> None:
        route, seconds = _route(scope), time.perf_counter() - request.began
        code = request.code if request.ended or request.code >= 500 else _CANCELLED
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._requests.durations.labels(method, route, str(code)).observe(seconds)
        if request.first_s is not None:
            self._requests.firsts.labels(route).observe(request.first_s)
        span.update_name(f"HTTP {scope['method']} {route}")
        span.set_attributes({"http.route": route, "http.response.status_code": code})
        if code >= 500:
            span.set_status(trace.StatusCode.ERROR, str(code))
        span.end()


class _Request:
    """Passes an answer on and sees when it begins and ends."""

    def __init__(self, send: front.Send) -> None:
        self._send = send
        self.began = time.perf_counter()
        self.code = 500
        """Also where nothing was ever sent."""
        self.first_s: float | None = None
        self.ended = False

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.code = message["status"]
        elif message["type"] == "http.response.body":
            if self.first_s is None:
                self.first_s = time.perf_counter() - self.began
            self.ended = not message.get("more_body", False)
        await self._send(message)


def add_to(
    app: fastapi.FastAPI,
    settings: config.Settings,
    fleet: models.Fleet,
    admitted: callers.Callers,
) -> None:
    """Has an app measured and told of at `/metrics`; call it behind all other middleware.

    Args:
        app: of the gateway.
        settings: whether, see `telemetry.metrics`.
        fleet: the inference nodes.
        admitted: those who may ask, where tokens are on.
    """
    requests = Requests()
    app.add_middleware(Measured, requests=requests)
    if not settings.telemetry.metrics.enabled:
        return
    # Read in the event loop, by the endpoint below.
    figures = metrics.collected(settings, "gateway", requests, metrics.Reader(_reads(fleet)))

    @app.get(PATH, include_in_schema=False)
    async def told(request: fastapi.Request) -> responses.Response:
        try:
            admitted.identify(request.headers.get("authorization", "")).check_may(_METHOD)
        except errors.SkillmeshError as error:
            return refusals.of(error).response()
        return responses.Response(
            prometheus_client.generate_latest(figures),
            media_type=prometheus_client.CONTENT_TYPE_LATEST,
        )


def _reads(fleet: models.Fleet) -> dict[metrics.Family, metrics.Read]:
    def of_nodes(one: str) -> metrics.Values:
        return {(node.address,): float(getattr(node, one)) for node in fleet.nodes()}

    def requests() -> metrics.Values:
        return {
            (node.address, outcome): float(count)
            for node in fleet.nodes()
            for outcome, count in node.requests
        }

    return {
        NODE: lambda: _states(fleet.nodes()),
        IN_FLIGHT: lambda: of_nodes("in_flight"),
        REQUESTS: requests,
        RETRIES: lambda: of_nodes("retries"),
    }


def _states(nodes: Iterable[domain.NodeState]) -> metrics.Values:
    return {
        (node.address, state): float(node.status == state) for node in nodes for state in _STATES
    }


def _route(scope: front.Scope) -> str:
    """The pattern that matched, so that there are few; `other` for what is no endpoint."""
    path = getattr(scope.get("route"), "path", None)
    return str(path) if path else "other"


def _header(scope: front.Scope, name: str) -> str:
    wanted = name.encode()
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == wanted), "")
