"""Agents, and the layers that they share."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Agent:
    """An agent of the node, and what it has learned."""

    agent: str
    memory: str
    """AGENT@VERSION: what its next answer is given with."""
    examples: int
    """Questions that it learned the answers of."""
    queued: int
    """Questions that it has still to learn."""
    rounds: int
    is_settled: bool
    """Whether everything that it sent to the hierarchy came back."""
    mark: str
    """Of its last settlement: fast_track, normal or conflict."""
    hit_rate: float
    connected: bool
    """Whether the hierarchy is there."""
    refused: str
    """Why the hierarchy does not take what it learns; empty where it does."""
    given_up_count: int
    """Questions whose answers it could not learn or keep."""
    given_up: tuple[tuple[str, str], ...] = ()
    """The latest of them, each with the reason, where one agent was asked for."""

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to learn."""
        return self.queued == 0 and self.is_settled


@dataclasses.dataclass(frozen=True)
class Hierarchy:
    """The layers that agents share."""

    version: int
    """Of the newest snapshot."""
    tick: int
    agents: int
    waiting: int
    """Submissions that the next tick settles."""
    verdict: str
    """`healthy`, or what is wrong with the whole."""
    frozen: tuple[str, ...]
    """Levels."""
