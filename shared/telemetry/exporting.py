"""Where spans go: to a collector by OTLP, or into a file of JSON lines."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator, Sequence

from opentelemetry import trace
from opentelemetry.sdk import resources
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace import export, sampling

from shared import errors
from shared import settings as config

_EVERY_MS = 1000
"""Spans wait for so long at most before they leave; nobody waits for them."""


@contextlib.contextmanager
def exported(settings: config.Settings, service: str) -> Iterator[None]:
    """Has the spans of this process leave it, until the end; once in a process.

    Args:
        settings: whether, and where to.
        service: name of the role.

    Raises:
        errors.ConfigError: the file can't be written.
    """
    traces = settings.telemetry.traces
    if traces.exporter == "none":
        yield
        return
    made = provider(
        _exporter(settings, service), service, settings.cluster.name, traces.sample_share
    )
    trace.set_tracer_provider(made)
    try:
        yield
    finally:
        made.shutdown()


def provider(
    exporter: export.SpanExporter, service: str, cluster: str, sample_share: float = 1.0
) -> sdk.TracerProvider:
    """Makes spans and hands them to an exporter, in a thread of its own.

    Args:
        exporter: takes them.
        service: name of the role.
        cluster: that it belongs to.
        sample_share: of the traces that begin here.
    """
    made = sdk.TracerProvider(
        sampler=sampling.ParentBased(sampling.TraceIdRatioBased(sample_share)),
        resource=resources.Resource.create(
            {
                "service.name": service,
                "service.namespace": cluster,
                "service.instance.id": f"{service}-{os.getpid()}",
            }
        ),
        shutdown_on_exit=False,
    )
    made.add_span_processor(export.BatchSpanProcessor(exporter, schedule_delay_millis=_EVERY_MS))
    return made


class FileExporter(export.SpanExporter):
    """Appends spans to a file, a JSON object a line, as OpenTelemetry's console exporter has it."""

    def __init__(self, path: pathlib.Path) -> None:
        """Opens the file, which others may write to as well.

        Raises:
            errors.ConfigError: it can't be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            self._file: int | None = os.open(path, flags, 0o600)
        except OSError as error:
            raise errors.ConfigError(
                f"telemetry.traces.folder: {path} can't be written: {error.strerror}"
            ) from error

    def export(self, spans: Sequence[sdk.ReadableSpan]) -> export.SpanExportResult:
        """Writes them in one go, so that lines of several processes don't mix."""
        lines = "".join(span.to_json(indent=None) + "\n" for span in spans).encode()
        try:
            if self._file is not None:
                os.write(self._file, lines)
        except OSError:
            # A full disk must not stop the service; the next spans may fit.
            return export.SpanExportResult.FAILURE
        return export.SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Closes the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits in here."""
        return True


def _exporter(settings: config.Settings, service: str) -> export.SpanExporter:
    traces = settings.telemetry.traces
    if traces.exporter == "file":
        folder = traces.folder or settings.state_path("traces")
        return FileExporter(folder / f"{service}.jsonl")
    # It takes a while to import, and most processes export nothing.
    from opentelemetry.exporter.otlp.proto.grpc import trace_exporter

    return trace_exporter.OTLPSpanExporter(
        traces.endpoint, insecure=not traces.endpoint.startswith("https://")
    )
