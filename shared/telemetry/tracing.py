"""Traces: spans of OpenTelemetry, and how one trace goes on elsewhere and later.

A trace travels with calls as W3C's `traceparent`, and with what is kept (events, tasks, cards) as
the same text. Where nothing exports them, spans cost next to nothing, and a trace that came with a
call still goes on to whom that call asks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace.propagation import tracecontext

HEADER = "traceparent"
"""Of W3C Trace Context: https://www.w3.org/TR/trace-context/."""
_NAME = "skillmesh"
_FORMAT = tracecontext.TraceContextTextMapPropagator()
Attribute = str | int | float | bool


@contextlib.contextmanager
def span(
    name: str, kind: trace.SpanKind = trace.SpanKind.INTERNAL, **attributes: Attribute
) -> Iterator[trace.Span]:
    """A span around what is done within; an exception marks it as failed and goes on.

    Args:
        name: of the work; few different ones.
        kind: of the span.
        attributes: what else is to be known; no text of users, no secrets.
    """
    with trace.get_tracer(_NAME).start_as_current_span(
        name, kind=kind, attributes={f"{_NAME}.{key}": value for key, value in attributes.items()}
    ) as made:
        yield made


@contextlib.contextmanager
def resumed(traceparent: str) -> Iterator[None]:
    """Has what is done within belong to a trace that began elsewhere, or earlier.

    Args:
        traceparent: what `traceparent` gave there; empty or malformed: what is done within begins
            a trace of its own.
    """
    token = contexts.attach(parent(traceparent))
    try:
        yield
    finally:
        contexts.detach(token)


def parent(traceparent: str) -> contexts.Context:
    """OpenTelemetry's context of a `traceparent`; an empty one where it is malformed."""
    carrier = {HEADER: traceparent} if traceparent else {}
    return _FORMAT.extract(carrier, contexts.Context())


def traceparent() -> str:
    """Where the trace stands, for `resumed`; empty where there is none."""
    found = trace.get_current_span().get_span_context()
    if not found.is_valid:
        return ""
    return (
        f"00-{trace.format_trace_id(found.trace_id)}-{trace.format_span_id(found.span_id)}"
        f"-{found.trace_flags:02x}"
    )


def headers() -> dict[str, str]:
    """What an HTTP request carries, so that its server's spans belong to the trace."""
    carrier: dict[str, str] = {}
    _FORMAT.inject(carrier)
    return carrier


def ids() -> Mapping[str, str]:
    """`trace_id` and `span_id` of where the trace stands; nothing where there is none."""
    found = trace.get_current_span().get_span_context()
    if not found.is_valid:
        return {}
    return {
        "trace_id": trace.format_trace_id(found.trace_id),
        "span_id": trace.format_span_id(found.span_id),
    }
