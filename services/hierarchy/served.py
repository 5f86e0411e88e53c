"""`LoRAHierarchy` as the service needs it: with figures that are read without waiting for a tick.

Fills `port.Layers`. Figures are taken once a tick has ended, by whoever made it.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence

from services.hierarchy import health, hierarchy, migration, port, tick_report
from shared.hierarchy import levels, messages, weights

_ITEM_BYTES = 4
_AREAS = {
    health.Aspect.ENTROPY: "entropy",
    health.Aspect.QUEUE_DEPTH: "bandwidth",
    health.Aspect.QUEUE_WAIT: "bandwidth",
    health.Aspect.REJECTIONS: "bandwidth",
    health.Aspect.SIGNAL: "resonance",
    health.Aspect.FAST_TRACK: "resonance",
    health.Aspect.CONFLICTS: "resonance",
}


@dataclasses.dataclass(frozen=True)
class _Figures:
    """As of the last tick, or what an operator did since."""

    tick: int
    version: int
    layers: tuple[port.LayerState, ...]
    queues: tuple[port.QueueState, ...]
    totals: dict[str, port.Totals]
    actions: tuple[port.Action, ...]


class ServedHierarchy:
    """Safe to use from several threads."""

    def __init__(self, layers: hierarchy.LoRAHierarchy) -> None:
        """Takes the hierarchy, which nobody else ticks."""
        self._hierarchy = layers
        self._lock = threading.Lock()
        self._report: tick_report.TickReport | None = None
        self._figures = self._taken()

    def snapshot(self) -> messages.Snapshot:
        """The newest."""
        return self._hierarchy.snapshot()

    def submit(self, submission: messages.Submission) -> bool:
        """Takes a submission, durably; false for one that was seen already."""
        return self._hierarchy.submit(submission)

    def system_tick(self) -> port.Tick:
        """One tick, committed when it returns."""
        with self._lock:
            report = self._hierarchy.system_tick()
            self._report = report
            self._figures = self._taken()
        return port.Tick(report.tick, report.version, report.submissions, len(report.moved))

    def settlements(self, agent: str, after: int) -> Sequence[messages.Settlement]:
        """Those above a sequence; those up to it are kept no longer."""
        return self._hierarchy.settlements(agent, after)

    def last_sequence(self, agent: str) -> int:
        """Of an agent's submissions, settled or waiting."""
        return self._hierarchy.last_sequence(agent)

    def totals(self, agent: str) -> port.Totals:
        """What an agent brought, as of the last tick."""
        return self._figures.totals.get(agent, port.Totals(0, 0, 0))

    def waiting(self) -> Sequence[port.Waiting]:
        """Submissions that the next tick settles."""
        return [
            port.Waiting(one.agent, _size(one), one.sequence)
            for one in self._hierarchy.waiting_submissions()
        ]

    @property
    def has_work(self) -> bool:
        """Whether anything was submitted, or a circuit waits for bandwidth."""
        return bool(self._hierarchy.waiting) or any(one.depth for one in self._figures.queues)

    def set_frozen(self, level: levels.Level, frozen: bool) -> None:
        """Freezes a shared layer, or thaws it."""
        with self._lock:
            self._hierarchy.set_frozen(level, frozen)
            self._figures = self._taken()

    def roll_back(self, version: int | None) -> None:
        """Goes back to a snapshot; None: the last healthy one."""
        with self._lock:
            self._hierarchy.roll_back(version)
            self._figures = self._taken()

    def health(self) -> port.Health:
        """As of the last tick of this process."""
        figures, report = self._figures, self._report
        return port.Health(
            tick=figures.tick,
            version=figures.version,
            verdict=(report.verdict if report else health.Verdict.HEALTHY).value,
            measures=tuple(_measure(found) for found in report.findings) if report else (),
            actions=figures.actions,
        )

    def layer_states(self) -> Sequence[port.LayerState]:
        """The shared layers."""
        return self._figures.layers

    def queue_states(self) -> Sequence[port.QueueState]:
        """The queues between layers."""
        return self._figures.queues

    def close(self) -> None:
        """Waits for the tick under way."""
        with self._lock:
            pass

    def _taken(self) -> _Figures:
        state = self._hierarchy.state
        return _Figures(
            tick=state.ticks,
            version=state.version,
            layers=tuple(self._layer(level) for level in levels.SHARED),
            queues=tuple(self._queue(source) for source in migration.SOURCES),
            totals={
                agent: port.Totals(*state.accounts.totals(agent))
                for agent in state.accounts.names()
            },
            actions=tuple(
                port.Action(done.tick, done.remedy.value, done.level.value, done.reason)
                for done in state.actions.last
            ),
        )

    def _layer(self, level: levels.Level) -> port.LayerState:
        held, spec = self._hierarchy.state.layers[level], self._hierarchy.frame.specs[level]
        measured = self._report.homeostasis.get(level) if self._report else None
        sizes = [pair.size for pair in held.weights.values()]
        screened = sum(
            int((phases.a > 0).sum() + (phases.b > 0).sum()) for phases in held.phases().values()
        )
        return port.LayerState(
            level=level,
            rank=spec.rank,
            inertia=spec.inertia,
            entropy=measured.entropy if measured else 0.0,
            optimum=measured.optimum if measured else 0.0,
            threshold=held.threshold,
            screened_share=screened / sum(sizes),
            norm=weights.norm(held.weights),
            frozen=held.frozen,
            parameters=sum(sizes),
        )

    def _queue(self, source: levels.Level) -> port.QueueState:
        stats = self._hierarchy.state.coordinator.stats[source]
        target = source.above
        assert target is not None
        return port.QueueState(source, target, stats.depth, stats.oldest_ticks, stats.tokens)


def _size(submission: messages.Submission) -> int:
    """About the bytes that it came as."""
    parts = [*submission.shared.values(), *submission.private.values()]
    parts += [circuit.pieces for circuit in submission.circuits]
    return sum(_ITEM_BYTES * pair.size for part in parts for pair in part.values())


def _measure(found: health.Finding) -> port.Measure:
    return port.Measure(
        area=_AREAS[found.aspect],
        name=found.aspect.value,
        where=found.level.value if found.level else "",
        value=found.value,
        verdict=found.verdict.value,
        message=found.message,
    )
