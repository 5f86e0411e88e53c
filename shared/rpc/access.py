"""Tokens in gRPC calls: clients show theirs, servers look at it before the request is read.

What shows a token says to which trace a call belongs, too: one interceptor costs less than two.

What a token's role may do is said in `shared.security.callers`. Health and reflection are open, so
that any tool can ask whether a service lives and what it offers.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, cast

import grpc

from shared import errors
from shared.security import callers
from shared.telemetry import tracing

HEADER = "authorization"
_OPEN_SERVICES = ("/grpc.health.", "/grpc.reflection.")


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Turns away who has no token, or one whose role may not call this."""

    def __init__(self, admitted: callers.Callers) -> None:
        """Takes those who may call."""
        self._admitted = admitted

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """Lets a call through, or answers it with the reason why not."""
        method = str(handler_call_details.method)
        if not method.startswith(_OPEN_SERVICES):
            try:
                caller = caller_of(self._admitted, handler_call_details.invocation_metadata)
                caller.check_may(short_name(method))
            except errors.SkillmeshError as error:
                return _refusal(error)
        return await continuation(handler_call_details)


def caller_of(
    admitted: callers.Callers, metadata: Iterable[tuple[str, str | bytes]]
) -> callers.Caller:
    """The caller behind a call's metadata.

    Raises:
        errors.UnauthenticatedError: there is no token, or nobody has it.
    """
    found = next((value for key, value in metadata or () if key == HEADER), "")
    return admitted.identify(found if isinstance(found, str) else found.decode(errors="replace"))


def short_name(method: str) -> str:
    """`CardStore/Commit` of `/skillmesh.v1.CardStore/Commit`."""
    return method.lstrip("/").rpartition(".")[2]


_on_behalf: contextvars.ContextVar[str | None] = contextvars.ContextVar("on_behalf", default=None)
"""The authorization header of whom the calls of this context are made for."""


@contextlib.contextmanager
def on_behalf_of(authorization: str) -> Iterator[None]:
    """Makes the calls within with somebody else's token, so that only they decide what may be done.

    Args:
        authorization: their header of that name; empty where they have shown none, which is not
            made up for by the token of this process.
    """
    reset = _on_behalf.set(authorization)
    try:
        yield
    finally:
        _on_behalf.reset(reset)


def on_whose_behalf() -> str | None:
    """The authorization header of whom calls are made for here; None: of this process itself."""
    return _on_behalf.get()


def client_interceptors(token: str) -> list[grpc.aio.ClientInterceptor]:
    """What shows a token in every call, or that of whom a call is made for, and the trace."""
    return [_ShowUnary(token), _ShowStream(token)]


class _Shows:
    def __init__(self, token: str) -> None:
        self._own = callers.header(token) if token else ""

    def _with_headers(self, details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
        other = _on_behalf.get()
        shown = self._own if other is None else other
        traced = tracing.traceparent()
        if not shown and not traced:
            return details
        own = ((HEADER, shown), (tracing.HEADER, traced))
        metadata = grpc.aio.Metadata(*(details.metadata or ()), *(one for one in own if one[1]))
        replaced: grpc.aio.ClientCallDetails = cast(Any, details)._replace(metadata=metadata)
        return replaced


class _ShowUnary(_Shows, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        return await continuation(self._with_headers(client_call_details), request)


class _ShowStream(_Shows, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        return await continuation(self._with_headers(client_call_details), request)


def _refusal(error: errors.SkillmeshError) -> Any:
    async def refuse(request: Any, context: Any) -> Any:
        raise error

    # Without a deserialiser: what the stranger sent is not looked at.
    return grpc.unary_unary_rpc_method_handler(refuse)
