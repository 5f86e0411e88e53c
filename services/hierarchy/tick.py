"""One tick: the stages of `LoRAHierarchy.system_tick`, each a function of the work in hand.

A tick is a deterministic function of the committed state and of what was gathered: no clock, no
random numbers, everything in the order of names. Stages change the state that they are given;
whether that becomes the committed one is not theirs to say.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Callable, Mapping

import structlog

from services.hierarchy import (
    aggregation,
    circuit_stages,
    health,
    health_record,
    health_stage,
    resonance,
    waiting,
)
from services.hierarchy import state as states
from shared.hierarchy import changes, homeostasis, levels, messages, weights
from shared.hierarchy.levels import Level

_log = structlog.get_logger(__name__)


@dataclasses.dataclass
class Work:
    """A tick in the making."""

    state: states.State
    gathered: waiting.Gathered
    before: messages.Snapshot
    """That the tick began with."""
    culprits: waiting.Gathered = waiting.NOTHING
    """What it failed with, and goes on without."""
    culprits_reason: str = ""
    homeostasis: dict[Level, homeostasis.Homeostasis] = dataclasses.field(default_factory=dict)
    refused: dict[tuple[str, int], str] = dataclasses.field(default_factory=dict)
    """Submissions whose shared part is not taken, and why."""
    private: dict[str, dict[Level, weights.Weights]] = dataclasses.field(default_factory=dict)
    """By agent: changes of its own layers, as products."""
    gradients: dict[Level, dict[str, weights.Delta]] = dataclasses.field(default_factory=dict)
    """By shared layer and agent."""
    vertical: dict[str, resonance.Resonance] = dataclasses.field(default_factory=dict)
    factors: dict[str, float] = dataclasses.field(default_factory=dict)
    """By agent, what its swarm gradient is multiplied by."""
    horizontal: resonance.Horizontal | None = None
    combined: dict[Level, weights.Delta] = dataclasses.field(default_factory=dict)
    """By shared layer: the gradient that it was moved by."""
    moved: list[messages.Circuit] = dataclasses.field(default_factory=list)
    """As they lay before."""
    offered_circuits: int = 0
    rejected_circuits: int = 0
    placeless_circuits: int = 0
    """Of the rejected ones, those that found no place in their queue."""
    report: health.Report | None = None
    """None where the stage is switched off."""
    actions: list[health_record.Done] = dataclasses.field(default_factory=list)
    """Corrective ones of health that were carried out."""
    rolled_back: set[Level] = dataclasses.field(default_factory=set)
    finite: dict[Level, weights.Weights] = dataclasses.field(default_factory=dict)
    """Of each layer the weights that were last found finite."""


def run(work: Work, at: Callable[[str], None]) -> None:
    """All stages, in order; `at` is called with the name of each that has ended."""
    switches = work.state.settings.switches
    for name, stage in STAGES:
        if getattr(switches, name, True):
            stage(work)
            _ensure_finite(work, name)
        at(name)
    finish(work)


def _ensure_finite(work: Work, stage: str) -> None:
    """Gives up a layer's change that is not finite: nothing that follows could be trusted.

    The layer goes back to the snapshot that the tick began with.
    """
    for level, own in work.state.layers.items():
        if own.weights is not work.finite.get(level) and not _is_finite(own.weights):
            _log.error("a layer is not finite; it goes back", level=level.value, stage=stage)
            work.state.roll_back(work.before.version, of=[level])
            work.rolled_back.add(level)
        work.finite[level] = own.weights


def _is_finite(layer: weights.Weights) -> bool:
    return all(
        math.isfinite(float(pair.a.sum())) and math.isfinite(float(pair.b.sum()))
        for pair in layer.values()
    )


def maintain(work: Work) -> None:
    """Homeostasis of each layer that was moved since it was last looked at."""
    for level, own in work.state.layers.items():
        work.homeostasis[level] = own.maintain_homeostasis()


def gather(work: Work) -> None:
    """Sorts submissions by agent; refuses those of a snapshot that is too old, or not yet made.

    An agent's several submissions are one gradient: their sum, so that none counts more by sending
    more often than what aggregation clips to.
    """
    newest = work.before.version
    taken: dict[str, list[messages.Submission]] = collections.defaultdict(list)
    for one in work.gathered.submissions:
        if not _is_stale(work, one):
            taken[one.agent].append(one)
            continue
        most = work.state.settings.most_stale
        work.refused[one.agent, one.sequence] = (
            f"learned on snapshot {one.version}, and the newest is {newest}; one that is at most "
            f"{most} behind is taken: learn on a new one"
        )
    for agent, submissions in taken.items():
        private = [one.private for one in submissions]
        work.private[agent] = {
            level: weights.summed(held, [1.0] * len(held)) if len(held) > 1 else held[0]
            for level in levels.PRIVATE
            if (held := [part[level] for part in private if level in part])
        }
        for level in levels.SHARED:
            deltas = [one.shared[level] for one in submissions if level in one.shared]
            if deltas:
                work.gradients.setdefault(level, {})[agent] = changes.total(deltas)


def resonate_vertically(work: Work) -> None:
    """Marks each agent by what the OTHER agents bring to the swarm in this tick.

    An agent that is alone is held against the swarm's last change, if others had a part in that, so
    that none confirms itself.
    """
    gradients = _levelled(work.gradients.get(Level.SWARM, {}))
    swarm = work.before.layers[Level.SWARM]
    whole = changes.total(gradients.values())
    vertical = resonance.VerticalResonance(work.state.settings.vertical)
    for agent, private in work.private.items():
        own = gradients.get(agent)
        others = len(gradients) - (own is not None)
        if others:
            rest = whole if own is None else changes.less(whole, own)
            side = weights.product_change(swarm, changes.scaled(rest, 1.0 / others))
        else:
            side = work.state.last_change(agent)
        found = vertical.resonate(
            private.get(Level.CONTEXT, {}), private.get(Level.AGENT, {}), side
        )
        work.vertical[agent] = found
        work.factors[agent] = found.factors.get(Level.SWARM, 1.0)


def resonate_horizontally(work: Work) -> None:
    """Amplifies the agents' swarm gradients that agree, and damps those that conflict."""
    gradients = work.gradients.get(Level.SWARM)
    if gradients:
        horizontal = resonance.HorizontalResonance(work.state.settings.horizontal)
        work.horizontal = horizontal.resonate(gradients, work.before.layers[Level.SWARM])
        for agent, factor in work.horizontal.factors.items():
            work.factors[agent] = work.factors.get(agent, 1.0) * factor


def update(work: Work) -> None:
    """Moves each layer that agents have gradients for by their robust combination.

    A layer that nobody learned for stays as it is, decay included: what decays is what experience
    passes by, not what nobody uses for a while.
    """
    for level, own in work.state.layers.items():
        gradients = work.gradients.get(level)
        if not gradients or own.frozen:
            continue
        factors = work.factors if level is Level.SWARM else {}
        norms = work.state.norms[level]
        found = aggregation.combine(gradients, factors, work.state.settings.aggregation, norms)
        norms |= {agent: norm for agent, norm in found.norms.items() if norm > 0}
        if level is Level.SWARM:
            for agent, reason in found.left_out.items():
                _refuse(work, agent, reason)
        if found.delta:
            work.combined[level] = found.delta
            settings = work.state.settings
            breadth = found.breadth if settings.use_breadth else 1.0
            own.update(found.delta, settings.outer_rate * breadth)
            if level is Level.SWARM:
                work.state.last_movers = sorted(gradients.keys() - found.left_out.keys())


def finish(work: Work) -> None:
    """Publishes what the layers are now, and tells the agents."""
    state = work.state
    state.ticks += 1
    state.last_circuit = max([state.last_circuit, *work.gathered.circuits, *work.culprits.circuits])
    state.publish()
    if not work.rolled_back and (work.report is None or work.report.entropy_is_healthy):
        # Entropy was measured before the layers were moved: of what the tick began with.
        state.healthy = work.before.version
    state.prune()
    for circuit in work.moved:
        if circuit.level.above in work.rolled_back:
            # It is not there any more, and so can go no further.
            state.coordinator.withdraw(circuit.id)
        elif circuit.level is Level.AGENT:
            state.accounts.note_moved(circuit)
    for one in work.culprits.submissions:
        work.refused[one.agent, one.sequence] = work.culprits_reason
    settled = [*work.gathered.submissions, *work.culprits.submissions]
    for one in sorted(settled, key=lambda one: (one.agent, one.sequence)):
        state.accounts.settle(_settlement(work, one), one.examples)


def _is_stale(work: Work, one: messages.Submission) -> bool:
    return not 0 <= work.before.version - one.version <= work.state.settings.most_stale


def _settlement(work: Work, one: messages.Submission) -> messages.Settlement:
    reason = work.refused.get((one.agent, one.sequence), "")
    said = work.vertical.get(one.agent)
    if said is None or _is_stale(work, one):
        said = resonance.Resonance(messages.Mark.NORMAL, 0.0, {})
    return messages.Settlement(
        agent=one.agent,
        sequence=one.sequence,
        version=work.state.version,
        mark=said.mark,
        alignment=said.alignment,
        factors={level: said.factors[level] for level in levels.PRIVATE if level in said.factors},
        waiting=tuple(
            circuit.id
            for circuit in work.state.coordinator.waiting
            if circuit.level is Level.AGENT and circuit.agent == one.agent
        ),
        refused=reason,
    )


def _refuse(work: Work, agent: str, reason: str) -> None:
    for one in work.gathered.submissions:
        if one.agent == agent:
            work.refused.setdefault((one.agent, one.sequence), f"swarm: {reason}")


def _levelled(gradients: Mapping[str, weights.Delta]) -> dict[str, weights.Delta]:
    """None larger than the median, so that none speaks for all."""
    sizes = {agent: changes.size(delta) for agent, delta in gradients.items()}
    middle = sorted(sizes.values())[(len(sizes) - 1) // 2] if sizes else 0.0
    return {
        agent: delta if sizes[agent] <= middle else changes.scaled(delta, middle / sizes[agent])
        for agent, delta in gradients.items()
    }


STAGES: tuple[tuple[str, Callable[[Work], None]], ...] = (
    ("homeostasis", maintain),
    ("gather", gather),
    ("vertical", resonate_vertically),
    ("horizontal", resonate_horizontally),
    ("updates", update),
    ("detection", circuit_stages.detect),
    ("migration", circuit_stages.migrate),
    ("health", health_stage.check),
)
"""Names as in `Switches`; a tick goes through them in this order."""
