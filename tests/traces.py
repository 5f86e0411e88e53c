"""Spans that this process made: one provider, as OpenTelemetry takes no second one."""

from __future__ import annotations

import functools

from opentelemetry import trace
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace import export
from opentelemetry.sdk.trace.export import in_memory_span_exporter


@functools.cache
def kept() -> in_memory_span_exporter.InMemorySpanExporter:
    """Where they are kept, from the first call on; `clear` it before use."""
    exporter = in_memory_span_exporter.InMemorySpanExporter()
    provider = sdk.TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


def by_name() -> dict[str, sdk.ReadableSpan]:
    """The latest span of each name."""
    return {span.name: span for span in kept().get_finished_spans()}
