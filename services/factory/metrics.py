"""The factory's figures for Prometheus: tasks, stages, the gate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import core, registry

from services.factory import ledger, partners, statuses
from shared.telemetry import metrics

TASKS = metrics.gauge("skillmesh_tasks", "Learning tasks on record", "status")
SILENCE = metrics.gauge(
    "skillmesh_tasks_silence_seconds",
    "Since the latest change of the open task that has been silent longest; 0 without one",
)
STAGE = metrics.histogram(
    "skillmesh_stage_duration_seconds",
    "Steps of learning: distil, train, prove, publish, confirm, and what is between",
    metrics.LONG_S,
    *("stage", "outcome"),
)
DRAFTS = metrics.counter("skillmesh_gate_drafts", "Cards that were measured", "outcome")
ROWS = metrics.counter("skillmesh_gate_rows", "Rows of the gate's tables", "row", "outcome")
FAMILIES = (TASKS, SILENCE, STAGE, DRAFTS, ROWS)


class Learning(registry.Collector):
    """Is told how learning goes: an `observing.Observer`."""

    def __init__(self) -> None:
        """Begins with nothing."""
        self._stages, self._drafts, self._rows = STAGE.histogram(), DRAFTS.counter(), ROWS.counter()
        for passed in (True, False):
            self._drafts.labels(_outcome(passed))

    def stage(self, name: str, seconds: float, failed: bool) -> None:
        """A step of a workflow ran to its end, well or not."""
        self._stages.labels(name, "failed" if failed else "ok").observe(seconds)

    def gate(self, proof: partners.Proof) -> None:
        """A draft was measured."""
        self._drafts.labels(_outcome(proof.passed)).inc()
        for row in proof.rows:
            self._rows.labels(row.name, _outcome(row.passed)).inc()

    def describe(self) -> Iterable[core.Metric]:
        """Nothing, as everything that is read."""
        return ()

    def collect(self) -> Iterator[core.Metric]:
        """All of them."""
        for one in (self._stages, self._drafts, self._rows):
            yield from one.collect()


def reader(
    kept: ledger.Ledger, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
) -> metrics.Reader:
    """Reads the tasks on record; blocks on the database, in the scrape's thread."""

    def tasks() -> metrics.Values:
        found = kept.counts()
        return {(status.value,): float(found.get(status, 0)) for status in statuses.TaskStatus}

    def silence() -> metrics.Values:
        since_ms = kept.longest_silent_since_ms()
        return 0.0 if since_ms is None else max(0, now_ms() - since_ms) / 1000

    return metrics.Reader({TASKS: tasks, SILENCE: silence})


def _outcome(passed: bool) -> str:
    return "passed" if passed else "failed"
