"""The trainer's figures for Prometheus: its jobs, and how a training goes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from prometheus_client import core, registry

from services.trainer import pace as paces
from shared.telemetry import metrics

JOBS = metrics.gauge(
    "skillmesh_trainer_jobs", "Trainings and measurements that run, or wait for the one that does"
)
LOSS = metrics.gauge("skillmesh_training_loss", "Of the training that runs; absent without one")
SPEED = metrics.gauge(
    "skillmesh_training_tokens_per_second",
    "Read with gradients by the training that runs, padding not counted; absent without one",
)
LEFT = metrics.gauge(
    "skillmesh_training_left_seconds",
    "Until the last step of the training that runs, at its pace; absent without one",
)
DURATION = metrics.histogram(
    "skillmesh_training_duration_seconds",
    "Trainings that ran to their end",
    metrics.LONG_S,
    "kind",
)
FAMILIES = (JOBS, LOSS, SPEED, LEFT, DURATION)


class Work(registry.Collector):
    """Is told how the work goes: a `workshop.Observer`."""

    def __init__(self) -> None:
        """Begins with nothing."""
        self._jobs = 0
        self._pace: paces.Pace | None = None
        self._duration = DURATION.histogram()

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Around one job, waiting included."""
        self._jobs += 1
        try:
            yield
        finally:
            self._jobs -= 1
            if not self._jobs:
                self._pace = None

    def stepped(self, pace: paces.Pace | None) -> None:
        """Where the training that runs stands; None: what runs is none."""
        self._pace = pace

    def trained(self, kind: str, seconds: float) -> None:
        """A training ran to its end."""
        self._duration.labels(kind).observe(seconds)

    def describe(self) -> Iterable[core.Metric]:
        """Nothing, as everything that is read."""
        return ()

    def collect(self) -> Iterator[core.Metric]:
        """All of them."""
        yield JOBS.of(self._jobs)
        pace = self._pace
        # Without a value where nothing runs, so that what is promised can be seen all the same.
        yield LOSS.of({} if pace is None else pace.loss)
        yield SPEED.of({} if pace is None else pace.tokens_per_s)
        yield LEFT.of({} if pace is None else pace.left_s)
        yield from self._duration.collect()
