"""What an agent's node and the hierarchy say to one another.

One round: a node learns from feedback on a snapshot of the shared layers, and sends a `Submission`.
The next `system_tick` answers it with a `Settlement`, by which the node moves the agent's own
layers; the shared ones come with the next snapshot. Submissions of one agent are numbered, so that
one that is sent again counts once, and settlements are kept until the node has taken them.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping

from shared.hierarchy import levels, weights


class Mark(enum.StrEnum):
    """What vertical resonance says of an agent's changes."""

    FAST_TRACK = "fast_track"
    NORMAL = "normal"
    CONFLICT = "conflict"


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The shared layers as they are after one tick: immutable, so that generation may hold it."""

    version: int
    """0 before anything was learned; rises with each tick that changed a layer."""
    layers: Mapping[levels.Level, weights.Weights]
    """The foundation, domain and swarm layer."""


@dataclasses.dataclass(frozen=True)
class Circuit:
    """A part of a layer that recurs in an agent's trajectories and is fit to move up.

    Rank channels of the layer: columns of A with their rows of B, those that were active.
    """

    id: str
    """Of one agent unique: `AGENT:NUMBER`."""
    agent: str
    level: levels.Level
    """Where it lies now."""
    top: levels.Level
    """How far up it may travel, by how often its trajectories were hit."""
    channels: Mapping[str, tuple[int, ...]]
    """Module path to numbers of rank channels in the layer where it lies."""
    pieces: weights.Weights
    """Those channels' factors."""
    autocorrelation: float
    """0 to 1: those that recur most move first."""
    hits: int
    fast_track: bool = False
    """Goes to the head of each queue."""
    critical: bool = False
    """Emergency: moves whatever the bandwidth."""

    @property
    def size(self) -> int:
        """Parameters that move."""
        return sum(factors.size for factors in self.pieces.values())


@dataclasses.dataclass(frozen=True)
class Submission:
    """What one agent has learned since its last one."""

    agent: str
    sequence: int
    """1, 2, 3 and so on; what is not above the last one seen was seen already."""
    version: int
    """Of the snapshot that it learned on."""
    shared: Mapping[levels.Level, weights.Delta]
    """Changes of A and B of shared layers, from that snapshot."""
    private: Mapping[levels.Level, weights.Weights]
    """Changes of the agent's own layers, as products: what vertical resonance compares."""
    circuits: tuple[Circuit, ...] = ()
    """Of the agent layer, that are to move to the swarm."""
    examples: int = 0
    """Pairs of feedback that it learned from."""


@dataclasses.dataclass(frozen=True)
class Settlement:
    """What became of a submission."""

    agent: str
    sequence: int
    version: int
    """Of the snapshot that holds it."""
    mark: Mark
    alignment: float
    """Mean cosine across context, agent and swarm, -1 to 1."""
    factors: Mapping[levels.Level, float]
    """What the agent's own changes are multiplied by before they are applied."""
    moved: tuple[str, ...] = ()
    """Ids of circuits that are in the swarm now: the agent layer lets go of their channels."""
    waiting: tuple[str, ...] = ()
    """Ids of its circuits that wait to move; one that neither waits nor has moved will not."""
    refused: str = ""
    """Why the shared part was not taken; empty where it was."""
