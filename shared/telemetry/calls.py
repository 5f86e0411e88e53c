"""How long gRPC calls take and how they end, as metrics and as spans.

The outermost interceptor of every server: what it sees is what the caller gets. Of our own, since
OpenTelemetry's for grpc.aio ends some streams with an error of its own and keeps a cancelled
call from being told as cancelled (opentelemetry-python-contrib, issues 3066 and 3271).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any

import grpc
from opentelemetry import context as contexts
from opentelemetry import trace
from prometheus_client import core, registry

from shared.telemetry import metrics, tracing

DURATION = metrics.histogram(
    "skillmesh_request_duration_seconds",
    "From the arrival of a gRPC call to the end of its answer",
    metrics.SHORT_S,
    *("service", "method", "code"),
)
ACTIVE = metrics.gauge("skillmesh_requests_active", "gRPC calls under way", "service", "method")
FAMILIES = (DURATION, ACTIVE)
_NOT_MEASURED = ("/grpc.",)
_NEVER_FIRST = ("Get", "List", "Watch", "Find", "Report")
"""Beginnings of methods that are asked again and again: they take part in a trace, and begin
none."""
_NEVER_TRACED = ("Watch",)
"""Streams of hours."""
_CANCELLED, _UNKNOWN = grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN


class CallInterceptor(grpc.aio.ServerInterceptor, registry.Collector):
    """Measures every call but those of health and reflection."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Begins with nothing.

        Args:
            clock: seconds, monotonic.
        """
        self._clock = clock
        self._durations = DURATION.histogram()
        self._active: dict[tuple[str, str], int] = {}

    def describe(self) -> Iterable[core.Metric]:
        """Nothing, as everything that is read."""
        return ()

    def collect(self) -> Iterator[core.Metric]:
        """Both families."""
        yield from self._durations.collect()
        yield ACTIVE.of({key: float(count) for key, count in list(self._active.items())})

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """Wraps unary and server-streaming handlers."""
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or method.startswith(_NOT_MEASURED):
            return handler
        if handler.unary_unary:
            inner = handler.unary_unary

            async def unary(request: Any, context: Any) -> Any:
                call = _Call(self, method, context)
                try:
                    answer = await inner(request, context)
                except BaseException as error:
                    call.end(_code(error, context))
                    raise
                call.end(_code(None, context))
                return answer

            return grpc.unary_unary_rpc_method_handler(
                unary, handler.request_deserializer, handler.response_serializer
            )
        if handler.unary_stream:
            inner_stream = handler.unary_stream

            async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
                call = _Call(self, method, context)
                try:
                    async for item in inner_stream(request, context):
                        yield item
                except BaseException as error:
                    call.end(_code(error, context))
                    raise
                call.end(_code(None, context))

            return grpc.unary_stream_rpc_method_handler(
                stream, handler.request_deserializer, handler.response_serializer
            )
        return handler

    def began(self, service: str, method: str) -> float:
        """Notes that a call is under way; returns the time."""
        key = (service, method)
        self._active[key] = self._active.get(key, 0) + 1
        return self._clock()

    def ended(self, service: str, method: str, code: grpc.StatusCode, began: float) -> None:
        """Notes how a call ended."""
        self._active[(service, method)] -= 1
        self._durations.labels(service, method, code.name).observe(self._clock() - began)


class _Call:
    """One call, with its span."""

    def __init__(self, kept: CallInterceptor, method: str, context: Any) -> None:
        service, _, self._method = method.lstrip("/").partition("/")
        self._kept, self._service = kept, service
        self._span = self._span_of(context)
        self._began = kept.began(service, self._method)

    def end(self, code: grpc.StatusCode) -> None:
        self._kept.ended(self._service, self._method, code, self._began)
        if self._span is not None:
            self._span.set_attribute("rpc.grpc.status_code", code.value[0])
            if code is not grpc.StatusCode.OK:
                self._span.set_status(trace.StatusCode.ERROR, code.name)
            self._span.end()

    def _span_of(self, context: Any) -> trace.Span | None:
        if self._method.startswith(_NEVER_TRACED):
            return None
        told = next(
            (value for key, value in context.invocation_metadata() or () if key == tracing.HEADER),
            "",
        )
        if not told and self._method.startswith(_NEVER_FIRST):
            return None
        parent = tracing.parent(str(told))
        span = trace.get_tracer("skillmesh").start_span(
            f"{self._service}/{self._method}",
            context=parent,
            kind=trace.SpanKind.SERVER,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": self._service,
                "rpc.method": self._method,
            },
        )
        # Not detached: every call has a task, and so a context, of its own. A stream that is
        # closed by somebody else could not do so without an error.
        contexts.attach(trace.set_span_in_context(span, parent))
        return span


def _code(error: BaseException | None, context: Any) -> grpc.StatusCode:
    """How a call ended."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return _CANCELLED
    found = context.code()
    if isinstance(found, int):
        found = next((code for code in grpc.StatusCode if code.value[0] == found), _UNKNOWN)
    if error is None:
        return found or grpc.StatusCode.OK
    return found if found and found is not grpc.StatusCode.OK else _UNKNOWN
