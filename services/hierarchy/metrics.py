"""The hierarchy's figures for Prometheus: every measure of its health, layers, queues, agents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import core, registry

from services.hierarchy import coordinator, status

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
        yield _gauge("agents", "Agents that joined", len(found.agents))
        yield _gauge("waiting", "Submissions that the next tick settles", found.waiting)
        yield _gauge("version", "Version of the newest snapshot", found.version)
        yield _counter("ticks", "Ticks made", found.tick)
        failed = self._coordinator.failed_ticks
        yield _counter("failed_ticks", "Ticks that failed since the process began", failed)
        for name, text in _LAYER_GAUGES.items():
            family = core.GaugeMetricFamily(f"{_PREFIX}layer_{name}", text, labels=["level"])
            for layer in found.layers:
                family.add_metric([layer.level.value], float(getattr(layer, name)))
            yield family
        for name, text in _QUEUE_GAUGES.items():
            labels = ["source", "target"]
            family = core.GaugeMetricFamily(f"{_PREFIX}queue_{name}", text, labels=labels)
            for queue in found.queues:
                family.add_metric([queue.source.value, queue.target.value], getattr(queue, name))
            yield family
        yield from _agents(found.agents)
        yield from self._health()

    def _health(self) -> Iterator[core.Metric]:
        layers = self._coordinator.layers
        if layers is None:
            return
        health = layers.health()
        yield _gauge("healthy", "1 where the whole is healthy", float(health.verdict == "healthy"))
        labels = ["area", "name", "where"]
        values = core.GaugeMetricFamily(
            f"{_PREFIX}health_measure", "A measure of health", labels=labels
        )
        verdicts = core.GaugeMetricFamily(
            f"{_PREFIX}health_ok", "1 where a measure is healthy", labels=labels
        )
        for one in health.measures:
            where = [one.area, one.name, one.where]
            values.add_metric(where, one.value)
            verdicts.add_metric(where, float(one.verdict == "healthy"))
        yield values
        yield verdicts


def _agents(agents: Iterable[status.AgentState]) -> Iterator[core.Metric]:
    families = {
        name: core.CounterMetricFamily(f"{_PREFIX}agent_{name}", text, labels=["agent"])
        for name, text in _AGENT_COUNTERS.items()
    }
    for agent in agents:
        label = [agent.member.agent]
        families["submissions"].add_metric(label, agent.activity.taken)
        families["refused"].add_metric(label, agent.activity.refused + agent.totals.refused)
        families["examples"].add_metric(label, agent.totals.examples)
    yield from families.values()


def _gauge(name: str, text: str, value: float) -> core.Metric:
    return core.GaugeMetricFamily(_PREFIX + name, text, value=value)


def _counter(name: str, text: str, value: float) -> core.Metric:
    return core.CounterMetricFamily(_PREFIX + name, text, value=value)
