"""What answering needs of agents' memories; `agents.agents.Agents` has them.

Knows nothing about layers or learning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from services.inference import captures, mixing
from shared import errors


class Memory(Protocol):
    """With what one question of an agent is answered."""

    @property
    def name(self) -> str:
        """`AGENT@VERSION`."""
        ...

    @property
    def key(self) -> str:
        """Of the engine: the memory, with the skills."""
        ...

    @property
    def capture(self) -> captures.Capture | None:
        """Fills where the generation is to be remembered."""
        ...


class Memories(Protocol):
    """The agents of a node."""

    async def prepare(self, agent: str) -> None:
        """Makes sure that `compose` knows an agent.

        Raises:
            errors.SkillmeshError: it can't be an agent, or its memory can't be served.
        """
        ...

    def compose(self, agent: str, skills: Sequence[mixing.Share] = ()) -> Memory | None:
        """An agent's memory, with served cards as they share the question; None: it has none."""
        ...

    def remember(self, agent: str, memory: Any) -> None:
        """Takes in the generation that a memory of `compose` gave; never waits."""
        ...


class NoMemories:
    """Of a node without agents; a `Memories`."""

    async def prepare(self, agent: str) -> None:
        """Knows nobody.

        Raises:
            errors.NotFoundError: always.
        """
        raise errors.NotFoundError(
            f"agent {agent!r} is not known: this node has no agents, hierarchy.enabled in "
            "config.yaml gives it some"
        )

    def compose(self, agent: str, skills: Sequence[mixing.Share] = ()) -> Memory | None:
        """Never called, since nobody could be prepared."""
        raise errors.InternalError(f"agent {agent!r} was not prepared")

    def remember(self, agent: str, memory: Any) -> None:
        """Never called, either."""
