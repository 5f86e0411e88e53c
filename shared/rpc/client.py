"""gRPC channels to other services: deadlines, retries where they help, typed errors.

Stubs are made from the channel by the caller; this module knows no service.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shared import errors
from shared.rpc import access
from shared.rpc import server as rpc_server
from shared.security import protection as protections

T = TypeVar("T")

DEFAULT_DEADLINE_S = 10.0
KEEPALIVE_MS = 20_000
LARGEST_FILE_BYTES = 3_670_016
"""3.5 MiB: of a file that travels within a call, of which a service takes 4."""
_TOO_LARGE = "larger than max"
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
OPTIONS = (
    # A service that comes back is found at once, not after gRPC's usual two minutes: a call that
    # comes between two attempts fails as if it were still away.
    ("grpc.initial_reconnect_backoff_ms", 100),
    # How long one attempt may take, handshake of TLS included; a refusal is told at once.
    ("grpc.min_reconnect_backoff_ms", 3000),
    ("grpc.max_reconnect_backoff_ms", 250),
    # By default pings become rare on a stream on which nothing is said.
    ("grpc.http2.max_pings_without_data", 0),
    # A listing carries every card's manifest (some 12 KB each): gRPC's 4 MiB end at 350 cards.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    # By default a process's channels to one address share a connection, and its failure: a new
    # one would be refused because another one was, while the service is there by now.
    ("grpc.use_local_subchannel_pool", 1),
)


def channel(
    address: str,
    keepalive_ms: int = KEEPALIVE_MS,
    protection: protections.Protection = protections.OPEN,
) -> grpc.aio.Channel:
    """An asynchronous channel to `host:port`; connects on first use and again after losses.

    Args:
        address: of the server.
        keepalive_ms: how often to ping a connection on which nothing is said.
        protection: the token to show, and whose certificates are believed.
    """
    options = (
        *OPTIONS,
        ("grpc.keepalive_time_ms", keepalive_ms),
        *protection.channel_options(),
    )
    interceptors = access.client_interceptors(protection.token)
    credentials = protection.channel_credentials()
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options, interceptors=interceptors)
    return grpc.aio.secure_channel(address, credentials, options=options, interceptors=interceptors)


def to_error(error: grpc.aio.AioRpcError) -> errors.SkillmeshError:
    """The typed error behind a failed call."""
    metadata: Any = error.trailing_metadata() or ()
    trailing = dict(metadata)
    kind = trailing.get(rpc_server.KIND_METADATA, "")
    details = error.details() or error.code().name
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and not kind and _TOO_LARGE in details:
        # gRPC's own refusal: it has the status of a full queue, and no later try would mend it.
        return errors.CapacityError(
            f"this is too large for one call ({details}); send less at once"
        )
    if protections.is_refused_certificate(details):
        return protections.refused_certificate(details)
    return errors.from_status(error.code(), details, str(kind))


@contextlib.asynccontextmanager
async def typed_errors() -> AsyncIterator[None]:
    """Turns gRPC's errors into those of `shared.errors`."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise to_error(error) from error


async def call(method: Any, request: Any, deadline_s: float = DEFAULT_DEADLINE_S) -> Any:
    """One unary call with a deadline.

    Raises:
        errors.SkillmeshError: what the service answered, typed.
    """
    async with typed_errors():
        return await method(request, timeout=deadline_s)


async def is_serving(channel: grpc.aio.Channel, deadline_s: float) -> bool:
    """Whether the service behind a channel says in time that it serves."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    try:
        reply = await stub.Check(health_pb2.HealthCheckRequest(), timeout=deadline_s)
    except grpc.aio.AioRpcError:
        return False
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


async def retried(
    attempt: Callable[[], Awaitable[T]],
    total_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Repeats an idempotent attempt while its error says that a retry helps.

    Args:
        attempt: makes the call; must be safe to repeat.
        total_s: give up after this long and raise the last error.
        clock: seconds, monotonic.
    """
    deadline, pause = clock() + total_s, _FIRST_PAUSE_S
    while True:
        try:
            return await attempt()
        except errors.SkillmeshError as error:
            if not error.retryable or clock() + pause > deadline:
                raise
        await asyncio.sleep(pause * random.uniform(0.8, 1.2))
        pause = min(pause * 2, _LONGEST_PAUSE_S)


async def last_of_stream(
    method: Any,
    request: Any,
    on_update: Callable[[Any], Awaitable[None]] | None = None,
    deadline_s: float = 3600.0,
) -> Any:
    """Reads a progress stream to its end and returns the last message.

    Raises:
        errors.UnavailableError: the stream ended without any message.
        errors.SkillmeshError: what the service answered, typed.
    """
    last = None
    async with typed_errors():
        async for update in method(request, timeout=deadline_s):
            last = update
            if on_update is not None:
                await on_update(update)
    if last is None:
        raise errors.UnavailableError("the stream ended before its first message; ask again")
    return last
