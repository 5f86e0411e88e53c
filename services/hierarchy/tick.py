"""One tick: the stages of `LoRAHierarchy.system_tick`, each a function of the work in hand.

A tick is a deterministic function of the committed state and of what was gathered: no clock, no
random numbers, everything in the order of names. Stages change the state that they are given;
whether that becomes the committed one is not theirs to say.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Mapping

from services.hierarchy import aggregation, circuit_stages, health, resonance, waiting
from services.hierarchy import state as states
from shared.hierarchy import changes, homeostasis, levels, messages, weights
from shared.hierarchy.levels import Level


@dataclasses.dataclass
class Work:
    """A tick in the making."""

    state: states.State
    gathered: waiting.Gathered
    before: messages.Snapshot
    """That the tick began with."""
    homeostasis: dict[Level, homeostasis.Homeostasis] = dataclasses.field(default_factory=dict)
    refused: dict[tuple[str, int], str] = dataclasses.field(default_factory=dict)
    """Submissions whose shared part is not taken, and why."""
    private: dict[str, dict[Level, weights.Weights]] = dataclasses.field(default_factory=dict)
    """By agent: changes of its own layers, as products."""
    gradients: dict[Level, dict[str, weights.Delta]] = dataclasses.field(default_factory=dict)
    """By shared layer and agent."""
    vertical: dict[str, resonance.Resonance] = dataclasses.field(default_factory=dict)
    horizontal: resonance.Horizontal | None = None
    combined: dict[Level, weights.Delta] = dataclasses.field(default_factory=dict)
    """By shared layer: the gradient that it was moved by."""
    moved: list[messages.Circuit] = dataclasses.field(default_factory=list)
    """As they lay before."""
    rejected_circuits: int = 0
    verdict: health.Verdict | None = None


def run(work: Work, at: Callable[[str], None]) -> None:
    """All stages, in order; `at` is called with the name of each that has ended."""
    switches = work.state.settings.switches
    for name, stage in STAGES:
        if getattr(switches, name, True):
            stage(work)
        at(name)


def maintain(work: Work) -> None:
    """Homeostasis of each layer that was moved since it was last looked at."""
    for level, own in work.state.layers.items():
        work.homeostasis[level] = own.maintain_homeostasis()


def gather(work: Work) -> None:
    """Sorts submissions by agent; refuses those of a snapshot that is too old, or not yet made.

    An agent's several submissions are one gradient: their sum, so that none counts more by sending
    more often than what aggregation clips to.
    """
    newest, most = work.before.version, work.state.settings.most_stale
    taken: dict[str, list[messages.Submission]] = collections.defaultdict(list)
    for one in work.gathered.submissions:
        if one.version > newest:
            reason = f"learned on snapshot {one.version}, the newest is {newest}"
        elif newest - one.version > most:
            reason = f"learned on snapshot {one.version}, which is more than {most} behind {newest}"
        else:
            taken[one.agent].append(one)
            continue
        work.refused[one.agent, one.sequence] = reason
    for agent, submissions in taken.items():
        private = [one.private for one in submissions]
        work.private[agent] = {
            level: weights.summed(held, [1.0] * len(held))
            for level in levels.PRIVATE
            if (held := [part[level] for part in private if level in part])
        }
        for level in levels.SHARED:
            deltas = [one.shared[level] for one in submissions if level in one.shared]
            if deltas:
                work.gradients.setdefault(level, {})[agent] = changes.total(deltas)


def resonate_vertically(work: Work) -> None:
    """Marks each agent by what the OTHER agents bring to the swarm in this tick.

    An agent that is alone is held against the swarm's last change, so that none confirms itself.
    """
    gradients = aggregation.clipped(
        work.gradients.get(Level.SWARM, {}), work.state.settings.aggregation
    )
    swarm = work.before.layers[Level.SWARM]
    whole = changes.total(gradients.values())
    vertical = resonance.VerticalResonance(work.state.settings.vertical)
    for agent, private in work.private.items():
        others = len(gradients) - (agent in gradients)
        if others:
            rest = (
                changes.total([whole, changes.scaled(gradients[agent], -1.0)])
                if (agent in gradients)
                else whole
            )
            side = weights.product_change(swarm, changes.scaled(rest, 1.0 / others))
        else:
            side = work.state.last_change()
        work.vertical[agent] = vertical.resonate(
            private.get(Level.CONTEXT, {}), private.get(Level.AGENT, {}), side
        )
    for agent, found in work.vertical.items():
        factor = found.factors.get(Level.SWARM, 1.0)
        if agent in gradients and factor != 1.0:
            own = work.gradients[Level.SWARM]
            own[agent] = changes.scaled(own[agent], factor)


def resonate_horizontally(work: Work) -> None:
    """Amplifies the agents' swarm gradients that agree, and damps those that conflict."""
    gradients = work.gradients.get(Level.SWARM)
    if not gradients:
        return
    horizontal = resonance.HorizontalResonance(work.state.settings.horizontal)
    work.horizontal = horizontal.resonate(gradients, work.before.layers[Level.SWARM])
    for agent, factor in work.horizontal.factors.items():
        gradients[agent] = changes.scaled(gradients[agent], factor)


def update(work: Work) -> None:
    """Moves each layer that agents have gradients for by their robust combination.

    A layer that nobody learned for stays as it is, decay included: what decays is what experience
    passes by, not what nobody uses for a while.
    """
    for level, own in work.state.layers.items():
        gradients = work.gradients.get(level)
        if gradients and not own.frozen:
            combined = aggregation.combine(gradients, work.state.settings.aggregation)
            work.combined[level] = combined
            own.update(combined)


def check_health(work: Work) -> None:
    """Measures, and carries out what the monitor asks for."""


STAGES: tuple[tuple[str, Callable[[Work], None]], ...] = (
    ("homeostasis", maintain),
    ("gather", gather),
    ("vertical", resonate_vertically),
    ("horizontal", resonate_horizontally),
    ("updates", update),
    ("detection", circuit_stages.detect),
    ("migration", circuit_stages.migrate),
    ("health", check_health),
)
"""Names as in `Switches`; a tick goes through them in this order."""


def settlements(work: Work) -> list[tuple[messages.Settlement, int]]:
    """What each submission is told, with its examples."""
    version = work.state.version
    found = []
    for one in work.gathered.submissions:
        said = work.vertical.get(one.agent)
        reason = work.refused.get((one.agent, one.sequence), "")
        factors: Mapping[Level, float] = said.factors if said and not reason else {}
        settlement = messages.Settlement(
            agent=one.agent,
            sequence=one.sequence,
            version=version,
            mark=said.mark if said and not reason else messages.Mark.NORMAL,
            alignment=said.alignment if said and not reason else 0.0,
            factors=dict(factors),
            refused=reason,
        )
        found.append((settlement, one.examples))
    return found
