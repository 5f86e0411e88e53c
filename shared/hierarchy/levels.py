"""The five layers of the hierarchy, their ranks and how fast each learns.

Multi-timescale learning: a layer with inertia i moves with the share 1 - i of the learning rate,
so that what is seen once stays in the fast layers and what recurs settles in the slow ones
(complementary learning systems: McClelland et al. 1995).
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping


class Level(enum.StrEnum):
    """One layer of the stack, slowest first."""

    FOUNDATION = "foundation"
    DOMAIN = "domain"
    SWARM = "swarm"
    AGENT = "agent"
    CONTEXT = "context"

    @property
    def is_shared(self) -> bool:
        """Whether all agents have this layer together; the others belong to one agent."""
        return self in SHARED

    @property
    def above(self) -> Level | None:
        """The next slower layer, to which circuits migrate; None above foundation."""
        at = LEVELS.index(self)
        return LEVELS[at - 1] if at else None


LEVELS = tuple(Level)
SHARED = (Level.FOUNDATION, Level.DOMAIN, Level.SWARM)
PRIVATE = (Level.AGENT, Level.CONTEXT)


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a layer is made with."""

    rank: int
    inertia: float
    """0 to below 1; the learning rate of the layer is 1 - inertia times that of the hierarchy."""


Specs = Mapping[Level, Spec]
DEFAULT_SPECS: Specs = {
    Level.FOUNDATION: Spec(64, 0.99),
    Level.DOMAIN: Spec(32, 0.9),
    Level.SWARM: Spec(16, 0.7),
    Level.AGENT: Spec(8, 0.5),
    Level.CONTEXT: Spec(4, 0.1),
}
DEFAULT_KINDS = ("q_proj", "k_proj", "v_proj", "o_proj")
"""Kinds of linear layer that are adapted: on them the ranks, 124 in all, are 3.4 % of a base of
half a billion weights."""
