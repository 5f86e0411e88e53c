"""The gRPC server that every service runs: health, reflection, error mapping, graceful stop.

Knows nothing about any service: it is given their servicers.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import grpc
import structlog
from google.protobuf import message as protobuf
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from shared import errors
from shared.rpc import access
from shared.security import protection as protections
from shared.telemetry import calls

_log = structlog.get_logger(__name__)
KIND_METADATA = "skillmesh-error"
"""Trailing metadata that names the error's class."""
_GRACE_S = 3.0
_SHORTEST_PING_MS = 100
OPTIONS = (
    # By default a server takes repeated pings on a quiet stream for an attack and hangs up ("too
    # many pings"). Pings that were held up may come close together.
    ("grpc.http2.min_ping_interval_without_data_ms", _SHORTEST_PING_MS),
    # Without this two servers share one port silently.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
)


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """The one place where exceptions become gRPC statuses."""

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[Any]],
        handler_call_details: Any,
    ) -> Any:
        """Wraps unary and server-streaming handlers."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        if handler.unary_unary:
            inner = handler.unary_unary

            async def unary(request: Any, context: Any) -> Any:
                async with _mapped(context, method):
                    return await inner(_read(request), context)

            return grpc.unary_unary_rpc_method_handler(
                unary, _reader(handler.request_deserializer), handler.response_serializer
            )
        if handler.unary_stream:
            inner_stream = handler.unary_stream
            if not hasattr(inner_stream, "__code__") or method.startswith("/grpc."):
                return handler

            async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
                async with _mapped(context, method):
                    async for item in inner_stream(_read(request), context):
                        yield item

            return grpc.unary_stream_rpc_method_handler(
                stream, _reader(handler.request_deserializer), handler.response_serializer
            )
        return handler


def _reader(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """Reads requests; of one that can't be read it returns the error, which gRPC would not map."""
    if deserialize is None:
        return None

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except protobuf.DecodeError as error:
            return error

    return read


def _read(request: Any) -> Any:
    if isinstance(request, protobuf.DecodeError):
        raise errors.InvalidInputError(
            f"the request can't be read: {request}; texts must be UTF-8, and the message that of "
            "protos/"
        )
    return request


@contextlib.asynccontextmanager
async def _mapped(context: Any, method: str) -> AsyncIterator[None]:
    try:
        yield
    except errors.SkillmeshError as error:
        reason = errors.brief(str(error))
        _log.info("call refused", method=method, kind=type(error).__name__, reason=reason)
        context.set_trailing_metadata(((KIND_METADATA, type(error).__name__),))
        await context.abort(error.status, reason)
    except (asyncio.CancelledError, grpc.aio.AbortError):
        raise
    # Not BaseException: GeneratorExit says that the caller of a stream went away.
    except Exception as error:
        _log.exception("call failed", method=method)
        reason = errors.brief(f"{method}: {type(error).__name__}: {error}")
        await context.abort(grpc.StatusCode.INTERNAL, reason)


class Server:
    """One service's gRPC server with health and reflection."""

    def __init__(
        self,
        add_servicers: Iterable[Callable[[grpc.aio.Server], str]],
        address: str,
        protection: protections.Protection = protections.OPEN,
    ) -> None:
        """Prepares the server.

        Args:
            add_servicers: functions that register a servicer and return its full service name.
            address: `host:port`; port 0 takes a free one, see `port` after `start`.
            protection: its certificate, and who may call.
        """
        self.calls = calls.CallInterceptor()
        """How long calls took, for `telemetry.metrics`."""
        self._server = grpc.aio.server(
            interceptors=[
                self.calls,
                ErrorInterceptor(),
                access.AccessInterceptor(protection.admitted),
            ],
            options=OPTIONS,
        )
        self._protection = protection
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._names = [add(self._server) for add in add_servicers]
        reflection.enable_server_reflection(
            [*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server
        )
        self._address = address
        self.port = 0

    async def start(self) -> None:
        """Binds and serves.

        Raises:
            errors.ConfigError: the port is taken.
        """
        try:
            credentials = self._protection.server_credentials()
            if credentials is None:
                self.port = self._server.add_insecure_port(self._address)
            else:
                self.port = self._server.add_secure_port(self._address, credentials)
        except RuntimeError as error:
            raise errors.ConfigError(
                f"can't listen on {self._address}: {error}; the port may be taken, choose another "
                "in config.yaml or stop the other process"
            ) from error
        await self._server.start()
        for name in ("", *self._names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self) -> None:
        """Turns new calls away, lets running ones end for a few seconds, then stops."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(_GRACE_S)


async def until_signal() -> None:
    """Waits for SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
