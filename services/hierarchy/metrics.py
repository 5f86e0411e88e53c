"""The hierarchy's figures for Prometheus: every measure of its health, layers, queues, agents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client import core, registry

from services.hierarchy import coordinator, status
from shared.telemetry import metrics

_PREFIX = "skillmesh_hierarchy_"
_LAYER_GAUGES: Mapping[str, str] = {
    "entropy": "Spectral entropy of the products A B",
    "optimum": "Entropy that the layer should have",
    "threshold": "Screening threshold",
    "screened_share": "Share of the parameters that are screened",
    "norm": "Frobenius norm of the products A B",
    "frozen": "1 where the layer does not change",
}
_QUEUE_GAUGES: Mapping[str, str] = {
    "depth": "Circuits that wait to move up",
    "longest_wait": "Ticks that the first of them has waited",
    "bandwidth_left": "Parameters that may move now",
}
_AGENT_COUNTERS: Mapping[str, str] = {
    "submissions": "Submissions taken since the process began",
    "refused": "Submissions turned away since the process began, and those not aggregated",
    "examples": "Pairs of feedback learned from",
}


AGENTS = metrics.gauge(f"{_PREFIX}agents", "Agents that joined")
WAITING = metrics.gauge(f"{_PREFIX}waiting", "Submissions that the next tick settles")
VERSION = metrics.gauge(f"{_PREFIX}version", "Version of the newest snapshot")
HEALTHY = metrics.gauge(f"{_PREFIX}healthy", "1 where the whole is healthy")
TICKS = metrics.counter(f"{_PREFIX}ticks", "Ticks made")
FAILED_TICKS = metrics.counter(
    f"{_PREFIX}failed_ticks", "Ticks that failed since the process began"
)
LAYERS = {
    name: metrics.gauge(f"{_PREFIX}layer_{name}", text, "level")
    for name, text in _LAYER_GAUGES.items()
}
QUEUES = {
    name: metrics.gauge(f"{_PREFIX}queue_{name}", text, "source", "target")
    for name, text in _QUEUE_GAUGES.items()
}
OF_AGENTS = {
    name: metrics.counter(f"{_PREFIX}agent_{name}", text, "agent")
    for name, text in _AGENT_COUNTERS.items()
}
MEASURE = metrics.gauge(f"{_PREFIX}health_measure", "A measure of health", "area", "name", "where")
OK = metrics.gauge(f"{_PREFIX}health_ok", "1 where a measure is healthy", "area", "name", "where")
FAMILIES = (
    *(AGENTS, WAITING, VERSION, HEALTHY, TICKS, FAILED_TICKS, MEASURE, OK),
    *LAYERS.values(),
    *QUEUES.values(),
    *OF_AGENTS.values(),
)


class HierarchyCollector(registry.Collector):
    """Reads everything anew at each scrape."""

    def __init__(self, coordinated: coordinator.Coordinator) -> None:
        """Takes the hierarchy."""
        self._coordinator = coordinated

    def describe(self) -> Iterable[core.Metric]:
        """None: what there is follows from what was measured."""
        return ()

    def collect(self) -> Iterator[core.Metric]:
        """All metrics as they are now; blocks."""
        found = status.of(self._coordinator)
        yield AGENTS.of(len(found.agents))
        yield WAITING.of(found.waiting)
        yield VERSION.of(found.version)
        yield TICKS.of(found.tick)
        yield FAILED_TICKS.of(self._coordinator.failed_ticks)
        for name, family in LAYERS.items():
            yield family.of({(one.level.value,): getattr(one, name) for one in found.layers})
        for name, family in QUEUES.items():
            yield family.of(
                {
                    (queue.source.value, queue.target.value): getattr(queue, name)
                    for queue in found.queues
                }
            )
        yield from _agents(found.agents)
        yield from self._health()

    def _health(self) -> Iterator[core.Metric]:
        layers = self._coordinator.layers
        if layers is None:
            return
        health = layers.health()
        yield HEALTHY.of(health.verdict == "healthy")
        found = {(one.area, one.name, one.where): one for one in health.measures}
        yield MEASURE.of({where: one.value for where, one in found.items()})
        yield OK.of({where: float(one.verdict == "healthy") for where, one in found.items()})


def _agents(agents: Sequence[status.AgentState]) -> Iterator[core.Metric]:
    taken, refused, examples = (OF_AGENTS[name] for name in ("submissions", "refused", "examples"))
    by_name = {(one.member.agent,): one for one in agents}
    yield taken.of({who: one.activity.taken for who, one in by_name.items()})
    yield refused.of(
        {who: one.activity.refused + one.totals.refused for who, one in by_name.items()}
    )
    yield examples.of({who: one.totals.examples for who, one in by_name.items()})
