"""`AgentLayers`: one agent's own layers, agent and context, and what it has learned for the others.

A round: learning gives changes (`learned`), which go to the hierarchy as a `Submission`; they move
the agent's own layers when the hierarchy has settled them, so that fast layers do not run away from
what the swarm contradicts. Each settlement is a tick of the agent's own: homeostasis, and circuits
that move from the context to the agent layer. Knows nothing about models, or how messages travel;
for one thread at a time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch

from shared import errors
from shared.hierarchy import (
    changes,
    circuits,
    layer,
    layer_settings,
    levels,
    messages,
    migration_queue,
    trajectories,
    weights,
    wire,
)
from shared.hierarchy.levels import Level
from shared.hierarchy.weights import Delta, Weights

_STILL_THERE = 0.5
"""Cosine to what was offered, from which a channel still is the circuit that has moved."""


@dataclasses.dataclass(frozen=True)
class AgentSettings:
    """Constants of an agent's own layers, and which of their mechanisms work."""

    layer: layer_settings.LayerSettings = dataclasses.field(
        default_factory=layer_settings.LayerSettings
    )
    circuits: circuits.CircuitSettings = dataclasses.field(default_factory=circuits.CircuitSettings)
    cache: trajectories.CacheSettings = dataclasses.field(
        default_factory=trajectories.CacheSettings
    )
    queue: migration_queue.QueueSettings = dataclasses.field(
        default_factory=migration_queue.QueueSettings
    )
    share: float = migration_queue.SHARES[Level.CONTEXT]
    """Of the context layer's parameters that may move to the agent layer in a tick."""
    most_unsettled: int = 8
    """Submissions on their way; while there are as many, what is learned gathers here."""
    patience: int = 16
    """Settlements after which a circuit that the hierarchy let go of, for want of a place, may be
    offered again. While it waits there it is never offered twice, however long that takes: what
    moved twice would count twice."""
    use_homeostasis: bool = True
    use_detection: bool = True
    use_migration: bool = True


@dataclasses.dataclass(frozen=True)
class Unsettled:
    """Changes of the agent's own layers that wait for a settlement."""

    sequence: int
    private: Mapping[Level, Delta]


@dataclasses.dataclass(frozen=True)
class Offered:
    """A circuit of the agent layer that was submitted and has not moved."""

    circuit: messages.Circuit
    sequence: int
    """Of the submission that brought it."""
    patience: int
    """Settlements until it may be offered again, where it does not wait any more."""


@dataclasses.dataclass
class Learned:
    """What was learned since the last submission."""

    version: int = 0
    """Of the oldest snapshot that it was learned on."""
    shared: dict[Level, Delta] = dataclasses.field(default_factory=dict)
    private: dict[Level, Delta] = dataclasses.field(default_factory=dict)
    examples: int = 0


class AgentLayers:
    """The layers of one agent, its detectors and its trajectory cache."""

    def __init__(
        self, agent: str, frame: wire.Frame, settings: AgentSettings | None = None, seed: int = 0
    ) -> None:
        """Layers at their start: they add nothing.

        Args:
            agent: its name.
            frame: of the hierarchy.
            settings: constants and switches.
            seed: of the start values, the hierarchy's.
        """
        self.agent = agent
        self.frame = frame
        self.settings = settings or AgentSettings()
        shapes = {path: frame.shapes[path] for path in sorted(frame.shapes)}
        self.layers = {
            level: layer.DynamicLoRALayer(
                level, shapes, frame.specs[level], self.settings.layer, seed
            )
            for level in levels.PRIVATE
        }
        self.detectors = {
            level: circuits.CircuitDetector(agent, level, self.settings.circuits)
            for level in levels.PRIVATE
        }
        self.cache = trajectories.TrajectoryCache(self.settings.cache)
        context = self.layers[Level.CONTEXT].weights.values()
        self.queue = migration_queue.MigrationQueue(
            Level.CONTEXT,
            sum(pair.size for pair in context),
            self.settings.share,
            self.settings.queue,
        )
        self.sequence = 0
        """Of the last submission."""
        self.pending = Learned()
        self.unsettled: list[Unsettled] = []
        self.offered: dict[str, Offered] = {}

    @property
    def weights(self) -> Mapping[Level, Weights]:
        """Both layers now; immutable."""
        return {level: own.weights for level, own in self.layers.items()}

    def observe(
        self, seen: trajectories.Trajectory, activity: Mapping[Level, Mapping[str, torch.Tensor]]
    ) -> bool:
        """Takes in one generation.

        Args:
            seen: tokens, logits, signature.
            activity: level to module path to (rank,), as from `circuits.activity`; a level that is
                missing saw nothing.

        Returns:
            Whether the trajectory cache had the like.
        """
        hit = self.cache.add(seen)
        if self.settings.use_detection:
            for level, active in activity.items():
                self.detectors[level].observe(seen.signature, active)
        return hit

    def learned(
        self,
        version: int,
        shared: Mapping[Level, Delta],
        private: Mapping[Level, Delta],
        examples: int,
    ) -> None:
        """Adds what a round of learning gave to what goes with the next submission.

        Args:
            version: of the snapshot that it was learned on.
            shared: changes of A and B of shared layers; all modules.
            private: of the agent's own, from their weights now; all modules.
            examples: pairs of feedback.
        """
        pending = self.pending
        version = min(version, pending.version) if pending.examples or pending.shared else version
        self.pending = Learned(
            version,
            _added(pending.shared, shared),
            _added(pending.private, private),
            pending.examples + examples,
        )

    def submission(self) -> messages.Submission | None:
        """What goes to the hierarchy next; None where there is nothing, or too much on its way."""
        pending = self.pending
        if len(self.unsettled) >= self.settings.most_unsettled:
            return None
        found = self._found_circuits()
        if not (pending.shared or pending.private or found):
            return None
        self.sequence += 1
        self.pending = Learned()
        self.unsettled.append(Unsettled(self.sequence, pending.private))
        for circuit in found:
            self.offered[circuit.id] = Offered(circuit, self.sequence, self.settings.patience)
        products = {
            level: weights.product_change(self.layers[level].weights, delta)
            for level, delta in pending.private.items()
        }
        return messages.Submission(
            agent=self.agent,
            sequence=self.sequence,
            version=pending.version,
            shared=pending.shared,
            private=products,
            circuits=tuple(found),
            examples=pending.examples,
        )

    def settle(self, settlement: messages.Settlement) -> None:
        """Applies a settlement: own changes, circuits that moved, then a tick of the own layers.

        One of a sequence that was settled before does nothing. Changes of submissions below its
        sequence, whose settlements were lost, are applied in full.

        Raises:
            errors.InvalidInputError: it is another agent's, or of a submission that was never made.
        """
        if settlement.agent != self.agent or settlement.sequence > self.sequence:
            raise errors.InvalidInputError(
                f"agent {self.agent!r}, which made {self.sequence} submissions: the settlement is "
                f"of {settlement.agent!r}, submission {settlement.sequence}"
            )
        if not any(one.sequence == settlement.sequence for one in self.unsettled):
            return
        while self.unsettled and self.unsettled[0].sequence <= settlement.sequence:
            self._apply(self.unsettled.pop(0), settlement)
        for moved in settlement.moved:
            self._let_go(moved)
        self._lose_patience(settlement)
        self.maintain()

    def maintain(self) -> None:
        """A tick of the own layers: homeostasis, and circuits from context to agent."""
        if self.settings.use_homeostasis:
            for own in self.layers.values():
                own.maintain_homeostasis()
        if not (self.settings.use_migration and self.settings.use_detection):
            return
        context, agent = self.layers[Level.CONTEXT], self.layers[Level.AGENT]
        detector = self.detectors[Level.CONTEXT]
        for circuit in detector.detect(context.weights, self.cache):
            if self.queue.offer(circuit) is not migration_queue.Offer.TAKEN:
                detector.dropped(circuit.id)
        if context.frozen or agent.frozen:
            return
        for circuit in self.queue.tick():
            agent.consolidate_circuit(circuits.refreshed(circuit, context.weights).pieces)
            self._release(Level.CONTEXT, circuit.channels)
            detector.moved(circuit.id)

    def _found_circuits(self) -> list[messages.Circuit]:
        if not (self.settings.use_detection and self.settings.use_migration):
            return []
        free = self.frame.most_circuits - len(self.offered)
        if free < self.settings.circuits.most_waiting:
            return []
        return self.detectors[Level.AGENT].detect(self.layers[Level.AGENT].weights, self.cache)

    def _apply(self, waited: Unsettled, settlement: messages.Settlement) -> None:
        exact = waited.sequence == settlement.sequence
        for level, delta in waited.private.items():
            share = settlement.factors.get(level, 1.0) if exact else 1.0
            self.layers[level].update(delta, share)

    def _let_go(self, moved: str) -> None:
        offered = self.offered.pop(moved, None)
        if offered is None:
            return
        held = self.layers[Level.AGENT].weights
        now = circuits.cut(held, offered.circuit.channels)
        still = {
            path: numbers
            for path, numbers in offered.circuit.channels.items()
            if weights.cosine({path: now[path]}, {path: offered.circuit.pieces[path]})
            >= _STILL_THERE
        }
        self._release(Level.AGENT, still)
        self.detectors[Level.AGENT].moved(moved, self.cache)

    def _lose_patience(self, settlement: messages.Settlement) -> None:
        for name, offered in list(self.offered.items()):
            if offered.sequence > settlement.sequence or name in settlement.waiting:
                continue
            if offered.patience > 1:
                self.offered[name] = dataclasses.replace(offered, patience=offered.patience - 1)
            else:
                del self.offered[name]
                self.detectors[Level.AGENT].dropped(name)

    def _release(self, level: Level, channels: Mapping[str, tuple[int, ...]]) -> None:
        """Lets go of channels; what was learned of them, and is not applied yet, goes with them."""
        if not channels:
            return
        self.layers[level].release(channels)
        self.unsettled = [
            dataclasses.replace(one, private=_without(one.private, level, channels))
            for one in self.unsettled
        ]
        self.pending.private = _without(self.pending.private, level, channels)


def _added(one: Mapping[Level, Delta], other: Mapping[Level, Delta]) -> dict[Level, Delta]:
    both = [level for level in levels.LEVELS if level in one or level in other]
    return {
        level: changes.total(part[level] for part in (one, other) if level in part)
        for level in both
    }


def _without(
    private: Mapping[Level, Delta], level: Level, channels: Mapping[str, tuple[int, ...]]
) -> dict[Level, Delta]:
    found = dict(private)
    if level in found:
        delta = dict(found[level])
        for path, numbers in channels.items():
            step = weights.Factors(delta[path].a.clone(), delta[path].b.clone())
            step.a[:, list(numbers)] = 0.0
            step.b[list(numbers)] = 0.0
            delta[path] = step
        found[level] = delta
    return found
