"""On which node each agent is now: an agent of one name on two nodes would count for one.

Both would number their submissions alike, and of two with one number the second is dropped as a
repetition.
"""

from __future__ import annotations

import collections
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator

from shared import errors

_AWAY_S = 10.0
"""So long after it was last heard of an agent may have moved to another node."""


class Presence:
    """Of all agents; for one thread at a time."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Nobody is here yet.

        Args:
            clock_s: monotonic.
        """
        self._clock_s = clock_s
        self._nodes: dict[str, str] = {}
        self._heard_s: dict[str, float] = {}
        self._watching: collections.Counter[str] = collections.Counter()

    def check(self, agent: str, node: str) -> None:
        """Checks that an agent may be on a node.

        Raises:
            errors.PreconditionError: it is on another one.
        """
        known = self._nodes.get(agent, node)
        lately = self._clock_s() - self._heard_s.get(agent, float("-inf")) < _AWAY_S
        if known != node and (self._watching[agent] or lately):
            raise errors.PreconditionError(
                f"agent {agent!r} is on node {known} now and can't be on {node}, too: an agent is "
                "told things on one node; give this one another name, or forget it on the other"
            )

    def joined(self, agent: str, node: str) -> None:
        """An agent has joined from a node.

        Raises:
            errors.PreconditionError: as `check`; two may have joined at the same time.
        """
        self.check(agent, node)
        self._nodes[agent], self._heard_s[agent] = node, self._clock_s()

    @contextlib.contextmanager
    def watching(self, agents: Iterable[str]) -> Iterator[None]:
        """While this is open their node follows them."""
        chosen = list(agents)
        self._watching.update(chosen)
        try:
            yield
        finally:
            self._watching.subtract(chosen)
            for agent in chosen:
                self._heard_s[agent] = self._clock_s()
