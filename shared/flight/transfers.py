"""What a data plane transfers: calls as metrics and spans, bytes as metrics."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow.flight
from opentelemetry import trace
from prometheus_client import core, registry

from shared.telemetry import metrics, tracing

MIDDLEWARE = "transfers"
DURATION = metrics.histogram(
    "skillmesh_flight_call_duration_seconds",
    "From the arrival of an Arrow Flight call to its end",
    metrics.SHORT_S,
    *("method", "outcome"),
)
BYTES = metrics.counter(
    "skillmesh_flight_bytes", "Bytes of files and tables that came in and went out", "direction"
)
FAMILIES = (DURATION, BYTES)


class Transfers(pyarrow.flight.ServerMiddlewareFactory, registry.Collector):  # type: ignore[misc]
    """Counts for one server; every call passes through it."""

    def __init__(self) -> None:
        """Begins with nothing."""
        super().__init__()
        self.durations = DURATION.histogram()
        self._bytes = BYTES.counter()
        self._in, self._out = (self._bytes.labels(one) for one in ("in", "out"))

    def came(self, size_bytes: int) -> None:
        """Notes bytes of an upload."""
        self._in.inc(size_bytes)

    def went(self, size_bytes: int) -> None:
        """Notes bytes of a download."""
        self._out.inc(size_bytes)

    def start_call(
        self, info: pyarrow.flight.CallInfo, headers: Mapping[str, Sequence[str | bytes]]
    ) -> _Transfer:
        """Begins to measure a call."""
        told = {key.lower(): value[0] for key, value in headers.items() if value}
        found = told.get(tracing.HEADER, "")
        given = found.decode(errors="replace") if isinstance(found, bytes) else found
        return _Transfer(self, info.method.name, given)

    def describe(self) -> Iterable[core.Metric]:
        """Nothing, as everything that is read."""
        return ()

    def collect(self) -> Iterator[core.Metric]:
        """Both families."""
        yield from self.durations.collect()
        yield from self._bytes.collect()


class _Transfer(pyarrow.flight.ServerMiddleware):  # type: ignore[misc]
    """One call; its span takes part in the caller's trace and begins none."""

    def __init__(self, kept: Transfers, method: str, traceparent: str) -> None:
        super().__init__()
        self._kept, self._method, self._began = kept, method, time.perf_counter()
        # Not made the current one: Flight's threads go on to other calls.
        self._span: trace.Span | None = None
        if traceparent:
            self._span = trace.get_tracer("skillmesh").start_span(
                f"Flight/{method}",
                context=tracing.parent(traceparent),
                kind=trace.SpanKind.SERVER,
                attributes={"rpc.system": "arrow_flight", "rpc.method": method},
            )

    def call_completed(self, exception: Exception | None) -> None:
        """Ends it."""
        outcome = "ok" if exception is None else "failed"
        seconds = time.perf_counter() - self._began
        self._kept.durations.labels(self._method, outcome).observe(seconds)
        if self._span is not None:
            if exception is not None:
                self._span.set_status(trace.StatusCode.ERROR, type(exception).__name__)
            self._span.end()
