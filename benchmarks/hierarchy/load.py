"""Random load on a hierarchy: agents, changes at random scales, circuits, bursts and silence.

What a tick gets is a function of the seed, the number of the tick and the state before it, so that
a process that was killed goes on with what an uninterrupted one would have sent.
"""

from __future__ import annotations

import dataclasses

import torch

from services.hierarchy import hierarchy
from shared.hierarchy import levels, messages, weights, wire
from shared.hierarchy.levels import Level

SMALL = wire.Frame(
    {
        "layers.0.q_proj": weights.Shape(12, 10),
        "layers.0.v_proj": weights.Shape(12, 6),
        "layers.1.q_proj": weights.Shape(12, 10),
    },
    {
        Level.FOUNDATION: levels.Spec(8, 0.99),
        Level.DOMAIN: levels.Spec(6, 0.9),
        Level.SWARM: levels.Spec(5, 0.7),
        Level.AGENT: levels.Spec(3, 0.5),
        Level.CONTEXT: levels.Spec(2, 0.1),
    },
)
"""On which a tick takes some milliseconds."""
_MOST_PER_TICK = 4
"""Submissions of one agent."""


@dataclasses.dataclass(frozen=True)
class Mixture:
    """How often what happens."""

    agents: int = 8
    silence: float = 0.2
    """Share of ticks without a submission."""
    burst: float = 0.1
    """Share of ticks in which every agent sends several."""
    circuit: float = 0.3
    """Of a submission to bring a circuit."""
    offered: float = 0.05
    """Of a tick to have a circuit of the swarm offered from outside."""
    common: float = 0.5
    """Of a submission to be of what all agents learn."""
    least_scale: float = -6.0
    """Decimal logarithm of the smallest change's values."""
    most_scale: float = 0.0


def send(to: hierarchy.LoRAHierarchy, tick: int, seed: int, mixture: Mixture | None = None) -> int:
    """Submits what comes before a tick; sending it again changes nothing.

    Args:
        to: the hierarchy, in the state that the tick before left.
        tick: its number, from 0.
        seed: of the whole load.
        mixture: how often what happens.

    Returns:
        How many submissions there were.
    """
    mixture = mixture or Mixture()
    draw = torch.Generator().manual_seed(seed * 1_000_003 + tick)
    kind = _uniform(draw)
    offered = _uniform(draw) < mixture.offered
    if kind < mixture.silence:
        counts = {}
    elif kind < mixture.silence + mixture.burst:
        counts = {at: _MOST_PER_TICK for at in range(mixture.agents)}
    else:
        chosen = torch.randperm(mixture.agents, generator=draw)
        counts = {int(at): 1 for at in chosen[: 1 + int(_uniform(draw) * mixture.agents)]}
    frame, version = to.frame, to.snapshot().version
    if offered:
        to.migrate_circuit(_circuit(frame, Level.SWARM, "", f"offered:{tick}", draw))
    for agent, count in sorted(counts.items()):
        name = f"agent-{agent}"
        for number in range(count):
            stale = int(_uniform(draw) ** 4 * 12)
            circuits: tuple[messages.Circuit, ...] = ()
            if _uniform(draw) < mixture.circuit:
                sequence = f"{name}:{tick * _MOST_PER_TICK + number}"
                circuits = (_circuit(frame, Level.AGENT, name, sequence, draw),)
            to.submit(
                messages.Submission(
                    agent=name,
                    sequence=tick * _MOST_PER_TICK + number + 1,
                    version=max(0, version - stale),
                    shared=_changes(frame, levels.SHARED, draw, mixture, tick),
                    private=_changes(frame, levels.PRIVATE, draw, mixture, tick),
                    circuits=circuits,
                    examples=1,
                )
            )
    for agent in range(mixture.agents):
        name = f"agent-{agent}"
        to.settlements(name, max(0, to.settled_sequence(name) - int(_uniform(draw) * 20)))
    return sum(counts.values())


def _uniform(draw: torch.Generator) -> float:
    return float(torch.rand((), generator=draw))


def _changes(
    frame: wire.Frame,
    of: tuple[Level, ...],
    draw: torch.Generator,
    mixture: Mixture,
    tick: int,
) -> dict[Level, weights.Weights]:
    """Changes at one random scale, some of them in a direction that lasts for many ticks."""
    low, high = mixture.least_scale, mixture.most_scale
    scale = float(10 ** (low + (high - low) * _uniform(draw)))
    source = draw
    if _uniform(draw) < mixture.common:
        source = torch.Generator().manual_seed(17 + tick // 50)
    return {
        level: {
            path: _pair(shape, frame.specs[level].rank, source, scale)
            for path, shape in sorted(frame.shapes.items())
        }
        for level in of
    }


def _pair(shape: weights.Shape, rank: int, draw: torch.Generator, scale: float) -> weights.Factors:
    return weights.Factors(
        torch.randn(shape.in_features, rank, generator=draw) * scale,
        torch.randn(rank, shape.out_features, generator=draw) * scale,
    )


def _circuit(
    frame: wire.Frame, level: Level, agent: str, name: str, draw: torch.Generator
) -> messages.Circuit:
    paths = sorted(frame.shapes)
    count = 1 + int(_uniform(draw) * 2)
    chosen = [paths[int(at)] for at in torch.randperm(len(paths), generator=draw)[:count]]
    rank = frame.specs[level].rank
    channels = {path: (int(_uniform(draw) * rank),) for path in sorted(chosen)}
    return messages.Circuit(
        id=name,
        agent=agent,
        level=level,
        top=(Level.FOUNDATION, Level.DOMAIN, Level.SWARM)[int(_uniform(draw) * 3)]
        if level is Level.AGENT
        else Level.DOMAIN,
        channels=channels,
        pieces={path: _pair(frame.shapes[path], 1, draw, 0.1) for path in channels},
        autocorrelation=0.7 + 0.3 * _uniform(draw),
        hits=int(_uniform(draw) * 100),
        critical=_uniform(draw) < 0.05,
    )
