"""Settings of logs, metrics and traces."""

from __future__ import annotations

import pathlib
from typing import Literal

from shared import sections


class Metrics(sections.Section):
    """Figures for Prometheus, over plain HTTP, of each process at an address of its own.

    The ports are those of the services and 20 more. The gateway has them at `/metrics` of its own
    address.
    """

    enabled: bool = False
    """Whether they are served."""
    router: sections.Address = "127.0.0.1:7421"
    """Where the router's are."""
    factory: sections.Address = "127.0.0.1:7422"
    """Where the factory's are."""
    distiller: sections.Address = "127.0.0.1:7423"
    """Where the distiller's are."""
    trainer: sections.Address = "127.0.0.1:7424"
    """Where the trainer's are."""
    card_store: sections.Address = "127.0.0.1:7425"
    """Where those of the card store's control plane are."""
    card_store_data: sections.Address = "127.0.0.1:7426"
    """Where those of its data plane are."""
    inference: sections.Address = "127.0.0.1:7427"
    """Where the inference node's are."""
    hierarchy: sections.Address = "127.0.0.1:7428"
    """Where the hierarchy's are."""

    def addresses(self) -> dict[str, str]:
        """Address by name of the process."""
        return {name: value for name, value in self if name != "enabled"}


class Traces(sections.Section):
    """What happened on the way of one question, as OpenTelemetry's spans."""

    exporter: Literal["none", "otlp", "file"] = "none"
    """`otlp` sends them to a collector; `file` writes them as lines of JSON."""
    endpoint: str = "http://127.0.0.1:4317"
    """Of the collector, OTLP over gRPC; `https://` for TLS."""
    folder: pathlib.Path | None = None
    """Of the files, one for each service; by default `traces` in the state folder."""
    sample_share: sections.Share = 1.0
    """Share of the traces that are kept; who begins one decides for all that take part."""


class Telemetry(sections.Section):
    """Logs, metrics and traces."""

    log_format: Literal["console", "json"] = "console"
    """How log lines look."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe lines that are written."""
    metrics: Metrics = Metrics()
    """Figures for Prometheus."""
    traces: Traces = Traces()
    """Spans of OpenTelemetry."""
