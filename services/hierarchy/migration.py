"""`MigrationCoordinator`: which circuits move up between the shared layers in a tick.

One queue a channel: agent to swarm, swarm to domain, domain to foundation (context to agent is the
node's own). It decides; the hierarchy moves the pieces, and offers what may travel further again,
as it lies in its new layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from shared import errors
from shared.hierarchy import levels, messages, migration_queue, states

SOURCES = (levels.Level.DOMAIN, levels.Level.SWARM, levels.Level.AGENT)
"""Layers that the channels lead out of, slowest first: the order in which a tick goes through them,
so that a layer lets go of channels before it takes new ones."""


@dataclasses.dataclass(frozen=True)
class Move:
    """One circuit that moves one channel up in this tick."""

    circuit: messages.Circuit
    """As it lies below: its level is the source."""
    target: levels.Level


class MigrationCoordinator:
    """The channels between shared layers; for one thread at a time."""

    def __init__(
        self,
        parameters: Mapping[levels.Level, int],
        shares: Mapping[levels.Level, float] = migration_queue.SHARES,
        settings: migration_queue.QueueSettings | None = None,
    ) -> None:
        """Empty queues.

        Args:
            parameters: of the layers of `SOURCES`. All agents share the channel to the swarm: of
                the agent layers together, or of one, as the swarm shall bear.
            shares: of a source layer's parameters that may move in a tick.
            settings: bounds of each queue.

        Raises:
            errors.ConfigError: a channel has no bandwidth.
        """
        self._queues = {
            source: migration_queue.MigrationQueue(
                source, parameters[source], shares[source], settings
            )
            for source in SOURCES
        }

    def __contains__(self, circuit: str) -> bool:
        return any(circuit in queue for queue in self._queues.values())

    @property
    def waiting(self) -> tuple[messages.Circuit, ...]:
        """All circuits that wait, slowest channel first."""
        return tuple(circuit for queue in self._queues.values() for circuit in queue.waiting)

    @property
    def stats(self) -> Mapping[levels.Level, migration_queue.QueueStats]:
        """Of each channel, by the layer that it leads out of."""
        return {source: queue.stats for source, queue in self._queues.items()}

    def offer(self, circuit: messages.Circuit) -> migration_queue.Offer:
        """Queues a circuit for the channel out of the layer where it lies.

        A circuit waits in one queue at a time, under one id, however far it travels. What just
        moved may be offered as it is, from its new layer: at its top it isn't taken.

        Raises:
            errors.InvalidInputError: no channel of these leads out of its layer.
        """
        if migration_queue.at_top(circuit):
            return migration_queue.Offer.AT_TOP
        if circuit.level not in self._queues:
            raise errors.InvalidInputError(
                f"circuit {circuit.id!r} lies in layer {circuit.level}: circuits come from "
                f"{', '.join(SOURCES)}"
            )
        elsewhere = [queue for source, queue in self._queues.items() if source != circuit.level]
        if any(circuit.id in queue for queue in elsewhere):
            return migration_queue.Offer.DUPLICATE
        return self._queues[circuit.level].offer(circuit)

    def replace(self, circuit: messages.Circuit) -> bool:
        """Puts a newer form of a waiting circuit in its place; whether it waits."""
        queue = self._queues.get(circuit.level)
        return queue is not None and queue.replace(circuit)

    def withdraw(self, circuit: str) -> bool:
        """Takes a circuit out, by id; whether it waited."""
        return any([queue.withdraw(circuit) for queue in self._queues.values()])

    def withdraw_agent(self, agent: str) -> tuple[str, ...]:
        """Takes out all circuits of an agent that still lie in its own layer; gives their ids.

        What already lies in a shared layer is the swarm's.
        """
        queue = self._queues[levels.Level.AGENT]
        gone = tuple(circuit.id for circuit in queue.waiting if circuit.agent == agent)
        for circuit in gone:
            queue.withdraw(circuit)
        return gone

    def tick(self, closed: Collection[levels.Level] = ()) -> list[Move]:
        """One tick of all channels: what moves now, in the order in which it is to be moved.

        Args:
            closed: layers that nothing may leave or enter now; their channels stand still.

        Each circuit moves one channel at most, since what is offered again meanwhile waits for the
        next tick.
        """
        return [
            Move(circuit, target)
            for source, queue in self._queues.items()
            if (target := source.above) is not None and not {source, target} & set(closed)
            for circuit in queue.tick()
        ]

    def state(self) -> states.State:
        """All of it, for `restore`."""
        return states.nested({source: queue.state() for source, queue in self._queues.items()})

    def restore(self, state: states.State) -> None:
        """Takes over a state, in place of what waits.

        Raises:
            errors.IntegrityError: the state does not fit together.
        """
        for source, queue in self._queues.items():
            queue.restore(states.part(state, source))
