"""Metrics for Prometheus: what there are, how they are read, where they are served.

A `Family` is a name with what it means. It is read at each scrape (`Reader`), or observed as things
happen (`counter`, `histogram`); whoever observes is given a plain function and knows nothing of
Prometheus. Every process has a registry of its own. Names and units follow
https://prometheus.io/docs/practices/naming/: base units, in the name; `_total` for counters.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

import prometheus_client
import structlog
from prometheus_client import core, registry

from shared import errors
from shared import settings as config

_log = structlog.get_logger(__name__)
_LOOP_S = 5.0
SHORT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Bounds for what people wait for, in seconds."""
LONG_S = (0.1, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600)
"""Bounds for what they don't, in seconds."""
SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
"""Bounds for shares and probabilities."""

Values = float | Mapping[tuple[str, ...], float]
"""One value, or one for each set of labels."""
Read = Callable[[], Values]


@dataclasses.dataclass(frozen=True)
class Family:
    """One metric with all its labels."""

    name: str
    """Without `_total`."""
    kind: Literal["gauge", "counter", "histogram"]
    text: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    """Of a histogram."""

    @property
    def exposed(self) -> tuple[str, ...]:
        """The names that a query may have."""
        if self.kind == "histogram":
            return tuple(f"{self.name}_{part}" for part in ("bucket", "count", "sum"))
        return (f"{self.name}_total",) if self.kind == "counter" else (self.name,)

    def histogram(self) -> prometheus_client.Histogram:
        """To be observed; belongs to no registry yet."""
        return prometheus_client.Histogram(
            self.name, self.text, self.labels, buckets=self.bounds, registry=None
        )

    def counter(self) -> prometheus_client.Counter:
        """To be counted; belongs to no registry yet."""
        return prometheus_client.Counter(self.name, self.text, self.labels, registry=None)

    def of(self, values: Values) -> core.Metric:
        """The metric with values that were read."""
        make = core.CounterMetricFamily if self.kind == "counter" else core.GaugeMetricFamily
        metric = make(self.name, self.text, labels=self.labels)
        by_labels = values if isinstance(values, Mapping) else {(): values}
        for labels, value in by_labels.items():
            metric.add_metric(labels, float(value))
        return metric


def gauge(name: str, text: str, *labels: str) -> Family:
    """What goes up and down."""
    return Family(name, "gauge", text, labels)


def counter(name: str, text: str, *labels: str) -> Family:
    """What only goes up, from 0 at the start of the process."""
    return Family(name, "counter", text, labels)


def histogram(name: str, text: str, bounds: Sequence[float], *labels: str) -> Family:
    """How something is distributed."""
    return Family(name, "histogram", text, labels, tuple(bounds))


class Reader(registry.Collector):
    """Reads numbers anew at each scrape, in the thread that answers it."""

    def __init__(self, reads: Mapping[Family, Read]) -> None:
        """Takes how each family is read."""
        self._reads = reads

    def describe(self) -> Iterable[core.Metric]:
        """Nothing: nothing is read before the first scrape."""
        return ()

    def collect(self) -> Iterator[core.Metric]:
        """All of them; what can't be read now is left out, and the log says why."""
        for family, read in self._reads.items():
            try:
                yield family.of(read())
            except Exception as error:
                # A database that is away must not take the other figures with it.
                _log.warning("metric not read", metric=family.name, reason=str(error))


class LoopReader(Reader):
    """Reads numbers that belong to the event loop which runs where it is made, within the loop."""

    def __init__(self, reads: Mapping[Family, Read]) -> None:
        """Takes how each family is read: fast, without blocking."""
        super().__init__(reads)
        self._loop = asyncio.get_running_loop()

    def collect(self) -> Iterator[core.Metric]:
        """All of them; nothing where the loop has no time for it."""

        async def read() -> list[core.Metric]:
            return list(super(LoopReader, self).collect())

        reading = asyncio.run_coroutine_threadsafe(read(), self._loop)
        try:
            yield from reading.result(_LOOP_S)
        except (TimeoutError, concurrent.futures.CancelledError):
            reading.cancel()
            _log.warning("metrics not read: the service is too busy", seconds=_LOOP_S)


PROCESS = ("process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds")
"""Of those that prometheus_client itself tells of each process."""
STATE_FREE = gauge("skillmesh_state_free_bytes", "Free on the disk of the state folder")
STATE_SIZE = gauge("skillmesh_state_disk_bytes", "Size of the disk of the state folder")
INFO = gauge(
    "skillmesh_service", "1; which service this is, and of which cluster", "role", "cluster"
)
FAMILIES = (INFO, STATE_FREE, STATE_SIZE)
"""Every process has them."""


def collected(
    settings: config.Settings, role: str, *collectors: registry.Collector
) -> prometheus_client.CollectorRegistry:
    """A registry with the figures of one process.

    Args:
        settings: state folder and cluster.
        role: of the process.
        collectors: its own figures.
    """
    found = prometheus_client.CollectorRegistry()
    prometheus_client.ProcessCollector(registry=found)
    folder = settings.cluster.state_dir
    shared = Reader(
        {
            INFO: lambda: {(role, settings.cluster.name): 1.0},
            STATE_FREE: lambda: _disk(folder)[0],
            STATE_SIZE: lambda: _disk(folder)[1],
        }
    )
    for collector in (shared, *collectors):
        found.register(collector)
    return found


@contextlib.contextmanager
def serving(settings: config.Settings, role: str, *collectors: registry.Collector) -> Iterator[int]:
    """Serves `/metrics` of one process in threads of its own, where that is switched on.

    Args:
        settings: whether and where.
        role: field of `telemetry.metrics` that says where.
        collectors: asked for their figures at each scrape, by a thread.

    Yields:
        The port; 0 where nothing is served.

    Raises:
        errors.ConfigError: the port is taken.
    """
    section = settings.telemetry.metrics
    if not section.enabled:
        yield 0
        return
    address = section.addresses()[role]
    host, _, port = address.rpartition(":")
    figures = collected(settings, role, *collectors)
    try:
        server, thread = prometheus_client.start_http_server(int(port), host, figures)
    except OSError as error:
        raise errors.ConfigError(
            f"can't listen on {address} (telemetry.metrics.{role}): {error}; the port may be "
            "taken, choose another in config.yaml or stop the other process"
        ) from error
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _disk(folder: pathlib.Path) -> tuple[int, int]:
    """Bytes that are free for this user, and all."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
