"""A hierarchy that learns nothing: each tick settles what waits and adds 1 to the version.

For what stands around `LoRAHierarchy`; see `services/hierarchy/port.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch

from services.hierarchy import port
from shared import errors
from shared.hierarchy import levels, messages, weights, wire

SHAPES = {"layers.0.q_proj": weights.Shape(4, 6), "layers.0.v_proj": weights.Shape(4, 2)}
SPECS = {
    levels.Level.FOUNDATION: levels.Spec(4, 0.99),
    levels.Level.DOMAIN: levels.Spec(3, 0.9),
    levels.Level.SWARM: levels.Spec(2, 0.7),
    levels.Level.AGENT: levels.Spec(2, 0.5),
    levels.Level.CONTEXT: levels.Spec(1, 0.1),
}
FRAME = wire.Frame(SHAPES, SPECS, most_circuits=4)


def layer(rank: int, seed: int = 0, shapes: dict[str, weights.Shape] = SHAPES) -> weights.Weights:
    """Factors of every module, drawn from a seed."""
    drawn = torch.Generator().manual_seed(seed)
    return {
        path: weights.Factors(
            torch.randn(shape.in_features, rank, generator=drawn),
            torch.randn(rank, shape.out_features, generator=drawn),
        )
        for path, shape in shapes.items()
    }


def submission(agent: str = "ada", sequence: int = 1, seed: int = 0) -> messages.Submission:
    """A change of the swarm layer."""
    delta = layer(SPECS[levels.Level.SWARM].rank, seed)
    return messages.Submission(agent, sequence, 0, {levels.Level.SWARM: delta}, {}, (), 1)


class FakeLayers:
    """All of `port.Layers`."""

    def __init__(self, frame: wire.Frame = FRAME) -> None:
        self.frame = frame
        self.pending: list[messages.Submission] = []
        self.told: list[messages.Settlement] = []
        self.version = self.ticks = 0
        self.seen: dict[str, int] = {}
        self.settled: dict[str, int] = {}
        self.frozen: set[levels.Level] = set()
        self.fail: errors.SkillmeshError | None = None
        """Raised by the next tick."""
        self.hold = threading.Event()
        """A tick waits for it."""
        self.hold.set()
        self.closed = False
        self.work = False

    def snapshot(self) -> messages.Snapshot:
        shared = {
            level: layer(self.frame.specs[level].rank, self.version, dict(self.frame.shapes))
            for level in levels.SHARED
        }
        return messages.Snapshot(self.version, shared)

    def submit(self, submission: messages.Submission) -> bool:
        if submission.sequence <= self.last_sequence(submission.agent):
            return False
        self.seen[submission.agent] = submission.sequence
        self.pending.append(submission)
        return True

    def system_tick(self) -> port.Tick:
        assert self.hold.wait(30)
        if self.fail is not None:
            fail, self.fail = self.fail, None
            raise fail
        taken, self.pending = self.pending, []
        self.version, self.ticks = self.version + 1, self.ticks + 1
        self.settled |= {one.agent: one.sequence for one in taken}
        factors = {levels.Level.AGENT: 0.5}
        self.told += [
            messages.Settlement(
                one.agent, one.sequence, self.version, messages.Mark.NORMAL, 0.25, factors
            )
            for one in taken
        ]
        return port.Tick(self.ticks, self.version, len(taken), 0)

    def settlements(self, agent: str, after: int) -> Sequence[messages.Settlement]:
        self.told = [one for one in self.told if one.agent != agent or one.sequence > after]
        return [one for one in self.told if one.agent == agent]

    def last_sequence(self, agent: str) -> int:
        return self.seen.get(agent, 0)

    def totals(self, agent: str) -> port.Totals:
        return port.Totals(self.settled.get(agent, 0), 0, 0)

    def waiting(self) -> Sequence[port.Waiting]:
        return [port.Waiting(one.agent, 1, one.sequence) for one in self.pending]

    @property
    def has_work(self) -> bool:
        return self.work or bool(self.pending)

    def set_frozen(self, level: levels.Level, frozen: bool) -> None:
        (self.frozen.add if frozen else self.frozen.discard)(level)

    def roll_back(self, version: int | None) -> None:
        if version is not None and version > self.version:
            raise errors.NotFoundError(f"snapshot {version} is not kept")
        self.version += 1

    def health(self) -> port.Health:
        measures = (port.Measure("entropy", "ratio", "swarm", 1.5, "warning", "too high"),)
        actions = (port.Action(self.ticks, "raise_threshold", "swarm", "entropy"),)
        return port.Health(self.ticks, self.version, "warning", measures, actions)

    def layer_states(self) -> Sequence[port.LayerState]:
        return [
            port.LayerState(
                level, spec.rank, spec.inertia, 0.5, 0.75, 0.25, 0.125, 2.0, level in self.frozen, 9
            )
            for level, spec in self.frame.specs.items()
            if level.is_shared
        ]

    def queue_states(self) -> Sequence[port.QueueState]:
        return [port.QueueState(levels.Level.SWARM, levels.Level.DOMAIN, 3, 2, 7.5)]

    def close(self) -> None:
        self.closed = True
