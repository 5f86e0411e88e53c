"""What watchers of the hierarchy are told, and which settlements they have not been told yet."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from services.hierarchy import port, snapshot_files
from shared.hierarchy import messages

_TOLD_AT_ONCE = 1000
"""Settlements of one message, and those of one agent more."""


@dataclasses.dataclass(frozen=True)
class News:
    """What a watcher is told; neither is a heartbeat."""

    snapshot: snapshot_files.Ticket | None = None
    settlements: tuple[messages.Settlement, ...] = ()


def untold(
    layers: port.Layers, taken: Mapping[str, int], told: Mapping[str, int]
) -> list[messages.Settlement]:
    """Settlements that were not told yet, each agent's in order; blocks.

    Args:
        layers: that has them; what was told stays there until the watcher says that it took it.
        taken: agent to the last sequence whose settlement the watcher took.
        told: agent to the last one that it was told.
    """
    found: list[messages.Settlement] = []
    for agent, after in taken.items():
        found += [one for one in layers.settlements(agent, after) if one.sequence > told[agent]]
        if len(found) >= _TOLD_AT_ONCE:
            break
    return found
