"""All of a hierarchy that can be seen from outside, gathered from its parts."""

from __future__ import annotations

import dataclasses

from services.hierarchy import coordinator, members, port, snapshot_files


@dataclasses.dataclass(frozen=True)
class AgentState:
    """One agent."""

    member: members.Member
    totals: port.Totals
    activity: coordinator.Activity
    last_sequence: int


@dataclasses.dataclass(frozen=True)
class Status:
    """The whole."""

    version: int
    tick: int
    base_fingerprint: str
    """Empty until the first agent joined."""
    modules: int
    layers: tuple[port.LayerState, ...]
    agents: tuple[AgentState, ...]
    queues: tuple[port.QueueState, ...]
    waiting: int
    """Submissions that the next tick settles."""
    snapshot: snapshot_files.Ticket | None


def of(coordinated: coordinator.Coordinator, owner: str | None = None) -> Status:
    """Gathers it; blocks.

    Args:
        coordinated: whose.
        owner: whose agents are shown; None: everybody's.
    """
    layers, base = coordinated.layers, coordinated.members.base
    if layers is None or base is None:
        return Status(0, 0, base.fingerprint if base else "", 0, (), (), (), 0, None)
    health = layers.health()
    return Status(
        version=health.version,
        tick=health.tick,
        base_fingerprint=base.fingerprint,
        modules=len(base.shapes),
        layers=tuple(layers.layer_states()),
        agents=tuple(
            AgentState(
                member,
                layers.totals(member.agent),
                coordinated.activity(member.agent),
                layers.last_sequence(member.agent),
            )
            for member in coordinated.members.agents
            if owner in (None, member.owner)
        ),
        queues=tuple(layers.queue_states()),
        waiting=coordinated.waiting,
        snapshot=coordinated.newest,
    )
