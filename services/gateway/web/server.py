"""All wiring of the HTTP process: OpenAI's protocol, probes, uvicorn from start to drain."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import time
from collections.abc import AsyncIterator, Callable

import fastapi
import structlog
import uvicorn
from fastapi import telemetry
from starlette import responses, routing
from starlette.middleware import cors

from services.gateway.calls import peers as calls
from services.gateway.nodes import fleet as fleets
from services.gateway.openai_api import (
    adapters,
    answering,
    asking,
    embeddings,
    feedback,
    limits,
    listing,
    models,
    refusals,
)
from services.gateway.web import draining, front, metrics, probes
from shared import errors
from shared import settings as config
from shared.rpc import server as rpc_server
from shared.security import callers

Pages = Callable[[fastapi.FastAPI, config.Settings, calls.Peers, asking.Fleet], None]
"""Mounts pages into the app."""
_log = structlog.get_logger(__name__)
_KEEP_ALIVE_S = 75
"""Longer than clients keep a connection for their next request, so that they close it first."""
_CLOSE_S = 1
"""After the drain: pages of the console hold their connections as long as they are open."""
_BACKLOG = 2048
_EXPOSED = (
    "retry-after",
    "retry-after-ms",
    "x-request-id",
    *(f"x-skillmesh-{name}" for name in ("card", "confidence", "node", "task", "event")),
    *(
        f"x-ratelimit-{part}-{of}"
        for part in ("limit", "remaining", "reset")
        for of in ("requests", "tokens")
    ),
)


def create_app(
    settings: config.Settings,
    services: calls.Peers,
    fleet: asking.Fleet,
    drain: draining.Drain | None = None,
) -> fastapi.FastAPI:
    """The app.

    Args:
        settings: of the cluster.
        services: its router, store, factory and agents.
        fleet: its inference nodes.
        drain: knows when it ends; by default never.

    Raises:
        errors.ConfigError: the tokens can't be read.
    """
    drain = drain or draining.Drain()
    gateway = settings.gateway
    # Without pages of documentation: those load their scripts from elsewhere.
    # Its own telemetry would begin a trace for every probe, and log what was wrong in requests.
    silent: telemetry.TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
    app = fastapi.FastAPI(title="skillmesh", docs_url=None, redoc_url=None, telemetry=silent)
    known = models.Models(fleet, services, settings.model.base, int(time.time()))
    ask = asking.Asking(fleet, services, limits.Limits(gateway.limits), gateway.deadline_s)
    refusals.add_to(app)
    for router in (
        answering.Answering(ask, known).router(),
        embeddings.router(ask, services),
        listing.router(known),
        adapters.router(fleet, known),
        feedback.router(services),
        probes.router(drain, services, fleet),
    ):
        app.include_router(router)
    _refuse_others(app)
    admitted = callers.Callers(settings.security.tokens)
    app.add_middleware(
        front.Front, admitted=admitted, drain=drain, body_mib=gateway.limits.body_mib
    )
    if gateway.cors_origins:
        # Outermost: a preflight has no key.
        app.add_middleware(
            cors.CORSMiddleware,
            allow_origins=gateway.cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=_EXPOSED,
        )
    metrics.add_to(app, settings, fleet, admitted)
    return app


def _refuse_others(app: fastapi.FastAPI) -> None:
    """Has what is no endpoint under the API's path refused there, whatever is mounted beside it."""

    @app.api_route(
        f"{front.PREFIX}{{rest:path}}",
        methods=["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"],
        include_in_schema=False,
    )
    async def other(request: fastapi.Request) -> responses.Response:
        matches = (route.matches(request.scope)[0] for route in app.router.routes)
        status = 405 if routing.Match.PARTIAL in matches else 404
        return refusals.of_status(status, request.method, request.url.path).response()


@dataclasses.dataclass(frozen=True)
class Running:
    """A gateway that serves."""

    port: int
    drain: draining.Drain


@contextlib.asynccontextmanager
async def running(
    settings: config.Settings, fleet: asking.Fleet | None = None, pages: Pages | None = None
) -> AsyncIterator[Running]:
    """Runs the gateway, from its start to its end, at which requests under way may end.

    Args:
        settings: of the cluster.
        fleet: its inference nodes; by default those that it finds.
        pages: mounts pages beside the API; by default there are none.

    Raises:
        errors.ConfigError: the port is taken, or a file of security can't be read.
    """
    drain = draining.Drain()
    async with contextlib.AsyncExitStack() as stack:
        listening = stack.enter_context(contextlib.closing(listen(settings.gateway.address)))
        services = await stack.enter_async_context(calls.connected(settings))
        found = fleet
        if found is None:
            found = await stack.enter_async_context(fleets.running(settings))
        app = create_app(settings, services, found, drain)
        if pages is not None:
            pages(app, settings, services, found)
        server = _Server(_configured(settings, app))
        serving = asyncio.create_task(server.serve([listening]))
        try:
            await server.until_started(serving)
            port = listening.getsockname()[1]
            scheme = "http" if settings.security.tls.certificate is None else "https"
            _log.info("gateway listens", port=port, scheme=scheme)
            yield Running(port, drain)
        finally:
            if not await drain.until_idle(settings.gateway.drain_s):
                _log.warning("requests are cut off", after_s=settings.gateway.drain_s)
            server.should_exit = True
            await serving
    _log.info("gateway ended")


async def serve(settings: config.Settings) -> None:
    """Runs the gateway until a signal."""
    # Before it listens: a signal that comes as soon as it answers must not end it at once.
    told = asyncio.create_task(rpc_server.until_signal())
    await asyncio.sleep(0)
    pages = None
    if settings.gateway.console:
        # Only here: what the pages are made with takes as long to import as all else.
        from services.gateway import console

        pages = console.mount  # Once a process: the console's pages belong to it.
    async with running(settings, pages=pages):
        await told


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs it: it has to go on listening while requests end."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        """Captures none."""
        yield

    async def until_started(self, serving: asyncio.Task[None]) -> None:
        """Waits until it serves.

        Raises:
            errors.InternalError: it ended before.
        """
        while not self.started:
            if serving.done():
                await serving
                raise errors.InternalError("the HTTP server ended before it served")
            await asyncio.sleep(0.01)


def listen(address: str) -> socket.socket:
    """A socket for connections, none of which holds back what it is given.

    Raises:
        errors.ConfigError: the port is taken.
    """
    host, _, port = address.rpartition(":")
    try:
        listening = socket.create_server((host, int(port)), backlog=_BACKLOG)
    except OSError as error:
        raise errors.ConfigError(
            f"gateway.address: can't listen on {address}: {error.strerror or error}; choose "
            "another port in config.yaml or stop the other process"
        ) from error
    # Connections inherit it. asyncio sets it on sockets that it makes itself alone, and without it
    # what follows the head of an answer waits up to 40 ms for the client to acknowledge that.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _configured(settings: config.Settings, app: fastapi.FastAPI) -> uvicorn.Config:
    # Whoever asks shows a key, not a certificate: browsers and OpenAI's tools have none.
    tls = settings.security.tls
    return uvicorn.Config(
        app,
        # Lines go through the root logger like those of everything else.
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="on",
        ws="websockets-sansio",
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_CLOSE_S,
        ssl_certfile=tls.certificate,
        ssl_keyfile=tls.key,
    )
