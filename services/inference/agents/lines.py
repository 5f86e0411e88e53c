"""`Line`: what agents need of the way to the hierarchy."""

from __future__ import annotations

from typing import Protocol

from services.inference.agents import hierarchy_client
from shared.hierarchy import messages


class Line(Protocol):
    """The way to the hierarchy; `hierarchy_client.HierarchyClient` is one."""

    @property
    def connected(self) -> bool:
        """Whether it is there now."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether another submission may wait."""
        ...

    def follow(self, agent: str, settled: int) -> None:
        """Joins an agent."""
        ...

    def leave(self, agent: str) -> None:
        """Forgets an agent."""
        ...

    def submit(self, submission: messages.Submission) -> None:
        """Has a submission sent; it is on disk when this returns."""
        ...

    def position(self, agent: str) -> hierarchy_client.Followed:
        """Whether an agent has joined, and the last sequence that the hierarchy has seen."""
        ...
