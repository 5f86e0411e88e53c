"""Which node holds which cards, as the nodes say it themselves.

Kept in memory alone: a node reports again within seconds, and one that is silent is forgotten.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from services.card_store import records
from shared import errors

FORGOTTEN_AFTER_MS = 30_000
_MOST_NODES = 10_000
_LONGEST_ID = 200


class Residency:
    """The latest report of every node."""

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        """Takes Unix time in milliseconds."""
        self._clock_ms = clock_ms
        self._nodes: dict[str, records.NodeResidency] = {}

    def report(self, node: records.NodeResidency) -> None:
        """Takes a node's report in place of the one before.

        Args:
            node: its time of report is set here.

        Raises:
            errors.InvalidInputError: the node has no id, or too long a one.
            errors.OverloadedError: there are too many nodes already.
        """
        if not 0 < len(node.node_id) <= _LONGEST_ID:
            raise errors.InvalidInputError(f"node_id must have 1 to {_LONGEST_ID} characters")
        self._forget_silent()
        if node.node_id not in self._nodes and len(self._nodes) >= _MOST_NODES:
            raise errors.OverloadedError(f"{_MOST_NODES} nodes report already; no more are kept")
        self._nodes[node.node_id] = dataclasses.replace(node, reported_at_ms=self._clock_ms())

    def nodes(self) -> list[records.NodeResidency]:
        """All nodes that are not silent, by their ids."""
        self._forget_silent()
        return [self._nodes[node_id] for node_id in sorted(self._nodes)]

    def _forget_silent(self) -> None:
        since_ms = self._clock_ms() - FORGOTTEN_AFTER_MS
        for node in [n for n in self._nodes.values() if n.reported_at_ms < since_ms]:
            del self._nodes[node.node_id]
