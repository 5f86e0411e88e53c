"""Everything of the hierarchy that a tick may change, as parts that the archive keeps.

A state is taken from the archive and given to it whole: one that a failing tick left half changed
is restored from what was committed.
"""

from __future__ import annotations

import types
from collections.abc import Collection, Mapping
from typing import Any

import torch

from services.hierarchy import (
    accounts,
    archive,
    channel_recurrence,
    health,
    health_record,
    hierarchy_settings,
    migration,
)
from shared import errors
from shared.hierarchy import layer, levels, messages, weights, wire
from shared.hierarchy.levels import Level

RECURRING = (Level.DOMAIN, Level.SWARM)
"""Shared layers whose circuits go further up."""
_ONE = "value"
"""Each tensor of a layer is a part of its own: what did not change is not written anew."""


class State:
    """The shared layers and what belongs to them; for one thread at a time."""

    def __init__(
        self,
        frame: wire.Frame,
        settings: hierarchy_settings.HierarchySettings,
        seed: int,
        kept_in: archive.Archive,
    ) -> None:
        """Layers at their start."""
        self._archive = kept_in
        self.frame, self.settings, self.seed = frame, settings, seed
        self.shapes = {path: frame.shapes[path] for path in sorted(frame.shapes)}
        shapes = self.shapes
        self.layers = {
            level: layer.DynamicLoRALayer(level, shapes, frame.specs[level], settings.layer, seed)
            for level in levels.SHARED
        }
        sides = sum(shape.in_features + shape.out_features for shape in shapes.values())
        self.coordinator = migration.MigrationCoordinator(
            {level: frame.specs[level].rank * sides for level in migration.SOURCES},
            settings.shares,
            settings.queue,
        )
        self.recurrences = {
            level: channel_recurrence.ChannelRecurrence(
                level, shapes, frame.specs[level].rank, settings.recurrence
            )
            for level in RECURRING
        }
        self.monitor = health.HealthMonitor(settings.health)
        self.accounts = accounts.Accounts(settings.most_settlements)
        self.ticks = 0
        self.last_circuit = 0
        """Number of the last offered circuit that a tick took."""
        self.actions = health_record.Actions()
        self.frozen_by_hand: set[Level] = set()
        """Shared layers that health does not thaw."""
        self.last_movers: list[str] = []
        """Agents by whose gradients the swarm was moved last."""
        self.norms: dict[Level, dict[str, float]] = {level: {} for level in levels.SHARED}
        """By layer and agent the largest change that it brought lately."""
        self.healthy = 0
        """Version of the last snapshot whose entropy was found healthy."""
        self.kept: dict[int, messages.Snapshot] = {}
        """The newest ones by version, and the last healthy one; always at least one."""
        self.publish()

    @property
    def version(self) -> int:
        """Of the newest snapshot."""
        return max(self.kept)

    @property
    def snapshot(self) -> messages.Snapshot:
        """The newest one."""
        return self.kept[self.version]

    def publish(self) -> bool:
        """Makes a snapshot where a layer has changed since the newest; whether there was need."""
        layers = {level: self.layers[level].weights for level in levels.SHARED}
        if self.kept:
            newest = self.snapshot.layers
            if all(_equal(layers[level], newest[level]) for level in layers):
                return False
        version = max(self.kept, default=-1) + 1
        self.kept[version] = messages.Snapshot(version, types.MappingProxyType(layers))
        return True

    def prune(self) -> None:
        """Lets old snapshots go, but for the last healthy one."""
        stay = {self.healthy, *sorted(self.kept)[-self.settings.kept_snapshots :]}
        self.kept = {version: one for version, one in self.kept.items() if version in stay}

    def roll_back(self, version: int | None = None, of: Collection[Level] = levels.SHARED) -> int:
        """Takes the layers up as they were in a kept snapshot; what is frozen stays so.

        Args:
            version: the last healthy one by default.
            of: the layers that go back.

        Returns:
            The version that they went back to.

        Raises:
            errors.NotFoundError: it is not kept, or its weights alone are.
        """
        wanted = self.healthy if version is None else version
        parts = self._archive.parts_of(wanted)
        for level in of:
            own = self.layers[level]
            frozen = own.frozen
            own.restore(_layer_state(level, parts))
            own.frozen = frozen
        return wanted

    def last_change(self, agent: str) -> weights.Weights:
        """What the last tick that moved the swarm changed, as a product.

        Args:
            agent: who is told; what it did alone is nothing that it could learn from.

        Returns:
            Empty where the swarm did not move, or only this agent moved it.
        """
        if not set(self.last_movers) - {agent}:
            return {}
        newest = self.snapshot.layers[Level.SWARM]
        for version in sorted(self.kept, reverse=True):
            before = self.kept[version].layers[Level.SWARM]
            if not _equal(before, newest):
                return weights.summed([newest, before], [1.0, -1.0])
        return {}

    def parts(self) -> dict[str, archive.Part]:
        """All tensors of the state; never written to again."""
        found: dict[str, archive.Part] = {"queues": self.coordinator.state()}
        for level, own in self.layers.items():
            found |= {f"{level}/{name}": {_ONE: one} for name, one in own.state().items()}
        for level, recurring in self.recurrences.items():
            found[f"recurrence of {level}"] = recurring.state()
        return found

    def values(self) -> dict[str, Any]:
        """What else there is of it, in plain values."""
        return {
            "made_of": self._made_of(),
            "ticks": self.ticks,
            "last_circuit": self.last_circuit,
            "actions": self.actions.values(),
            "health": health_record.state_values(self.monitor.state),
            "frozen_by_hand": sorted(self.frozen_by_hand),
            "healthy": self.healthy,
            "last_movers": self.last_movers,
            "norms": {level.value: dict(norms) for level, norms in self.norms.items()},
            "accounts": self.accounts.values(),
        }

    def kept_parts(self) -> dict[int, list[str]]:
        """Of each kept snapshot the parts that it lies in."""
        names = [f"{level}/{name}" for level, own in self.layers.items() for name in own.state()]
        return {version: names for version in sorted(self.kept)}

    def restore(
        self,
        parts: Mapping[str, archive.Part],
        values: Mapping[str, Any],
        kept: Mapping[int, messages.Snapshot],
    ) -> None:
        """Takes up a committed state.

        Args:
            parts: of it.
            values: of it.
            kept: its snapshots.

        Raises:
            errors.PreconditionError: it is of a hierarchy of other modules, ranks or start values.
        """
        if values["made_of"] != self._made_of():
            raise errors.PreconditionError(
                "hierarchy: what is on disk was made for other modules, ranks or another seed; "
                "take those again, or another folder"
            )
        for level in levels.SHARED:
            self.layers[level].restore(_layer_state(level, parts))
        self.coordinator.restore(parts["queues"])
        for level, recurring in self.recurrences.items():
            recurring.restore(parts[f"recurrence of {level}"])
        self.monitor.restore(health_record.state_of(values["health"]))
        self.actions.restore(values["actions"])
        self.frozen_by_hand = {Level(level) for level in values["frozen_by_hand"]}
        self.accounts.restore(values["accounts"])
        self.ticks, self.last_movers = values["ticks"], list(values["last_movers"])
        self.norms = {level: dict(values["norms"][level]) for level in levels.SHARED}
        self.last_circuit, self.healthy = values["last_circuit"], values["healthy"]
        newest = max(kept)
        # The newest snapshot is what the layers hold: the same objects, as if never restored.
        layers = {level: self.layers[level].weights for level in levels.SHARED}
        self.kept = dict(kept) | {newest: messages.Snapshot(newest, types.MappingProxyType(layers))}

    def read_layer(self, level: Level, parts: Mapping[str, archive.Part]) -> weights.Weights:
        """The factors of a kept layer from its parts."""
        scratch = layer.DynamicLoRALayer(level, self.shapes, self.frame.specs[level])
        scratch.restore(_layer_state(level, parts))
        return scratch.weights

    def _made_of(self) -> dict[str, Any]:
        shapes = {
            path: [shape.in_features, shape.out_features]
            for path, shape in sorted(self.frame.shapes.items())
        }
        ranks = {level.value: self.frame.specs[level].rank for level in levels.LEVELS}
        return {"shapes": shapes, "ranks": ranks, "seed": self.seed}


def _layer_state(level: Level, parts: Mapping[str, archive.Part]) -> dict[str, torch.Tensor]:
    start = f"{level}/"
    return {
        name.removeprefix(start): part[_ONE]
        for name, part in parts.items()
        if name.startswith(start)
    }


def _equal(one: weights.Weights, other: weights.Weights) -> bool:
    # By value: after a restart equal layers are other objects.
    return one is other or all(
        torch.equal(one[path].a, other[path].a) and torch.equal(one[path].b, other[path].b)
        for path in one
    )
