"""The router's figures for Prometheus: what became of questions and of events."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from prometheus_client import core, registry

from services.router import decision, dissonance, router
from shared.telemetry import following, metrics

ROUTED = metrics.counter(
    "skillmesh_routed", "Questions by outcome: card (one fits) or dissonance (none does)", "outcome"
)
CONFIDENCE = metrics.histogram(
    "skillmesh_route_confidence", "Calibrated probability that any card fits", metrics.SHARES
)
CARDS = metrics.gauge("skillmesh_router_cards", "Cards that questions may be sent to")
CALIBRATION = metrics.gauge(
    "skillmesh_router_calibration_error", "Expected error of the confidence, out of sample"
)
WAITING = metrics.gauge(
    "skillmesh_events_waiting", "Dissonance events that wait for an answer's signals or the factory"
)
EMITTED = metrics.counter("skillmesh_events_emitted", "Dissonance events")
DELIVERED = metrics.counter("skillmesh_events_delivered", "Dissonance events that the factory took")
DROPPED = metrics.counter(
    "skillmesh_events_dropped", "Dissonance events that were lost: no room, or refused"
)
FAMILIES = (
    *(ROUTED, CONFIDENCE, CARDS, CALIBRATION, WAITING, EMITTED, DELIVERED, DROPPED),
    *following.FAMILIES,
)


class Decisions(registry.Collector):
    """Counts decisions."""

    def __init__(self) -> None:
        """Begins with none."""
        self._routed, self._confidence = ROUTED.counter(), CONFIDENCE.histogram()
        for outcome in ("card", "dissonance"):
            self._routed.labels(outcome)

    def observe(self, made: decision.Decision) -> None:
        """Counts one."""
        self._routed.labels("dissonance" if made.dissonance else "card").inc()
        self._confidence.observe(made.confidence)

    def describe(self) -> Iterable[core.Metric]:
        """Nothing, as everything that is read."""
        return ()

    def collect(self) -> Iterator[core.Metric]:
        """Both families."""
        yield from self._routed.collect()
        yield from self._confidence.collect()


def reader(
    routing: router.LoRARouter, bus: dissonance.EventBus, cards: following.Follower
) -> metrics.LoopReader:
    """Reads what router, events and the line to the store say of themselves."""

    def calibration() -> metrics.Values:
        error = routing.calibration_error
        return {} if math.isnan(error) else error

    return metrics.LoopReader(
        {
            CARDS: lambda: len(routing),
            CALIBRATION: calibration,
            WAITING: lambda: bus.waiting,
            EMITTED: lambda: bus.emitted,
            DELIVERED: lambda: bus.delivered,
            DROPPED: lambda: bus.dropped,
            **following.reads(cards),
        }
    )
