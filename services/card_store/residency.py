"""Which node holds which cards, as the nodes say it themselves.

Kept in memory alone: a node reports again within seconds, and one that is silent is forgotten.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from services.card_store import records
from shared import errors

FORGOTTEN_AFTER_S = 30.0
_MOST_NODES = 10_000
_LONGEST_ID, _LONGEST_ADDRESS = 200, 300


class Residency:
    """The latest report of every node."""

    def __init__(
        self, clock_ms: Callable[[], int], monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Takes Unix time in milliseconds, which is told, and seconds that never jump."""
        self._clock_ms, self._monotonic_s = clock_ms, monotonic_s
        self._nodes: dict[str, records.NodeResidency] = {}
        self._heard_s: dict[str, float] = {}
        """When each node reported last: Unix time may be set back, and nobody would fall silent."""

    def report(self, node: records.NodeResidency) -> None:
        """Takes a node's report in place of the one before.

        Args:
            node: its time of report is set here.

        Raises:
            errors.InvalidInputError: the node has no id, or too long a one; its address is no
                `host:port`.
            errors.OverloadedError: there are too many nodes already.
        """
        if not 0 < len(node.node_id) <= _LONGEST_ID:
            raise errors.InvalidInputError(f"node_id must have 1 to {_LONGEST_ID} characters")
        if node.address and not _is_address(node.address):
            raise errors.InvalidInputError(
                f"address of node {node.node_id} must be host:port, of at most "
                f"{_LONGEST_ADDRESS} characters"
            )
        self._forget_silent()
        if node.node_id not in self._nodes and len(self._nodes) >= _MOST_NODES:
            raise errors.OverloadedError(f"{_MOST_NODES} nodes report already; no more are kept")
        self._nodes[node.node_id] = dataclasses.replace(node, reported_at_ms=self._clock_ms())
        self._heard_s[node.node_id] = self._monotonic_s()

    def nodes(self) -> list[records.NodeResidency]:
        """All nodes that are not silent, by their ids."""
        self._forget_silent()
        return [self._nodes[node_id] for node_id in sorted(self._nodes)]

    def _forget_silent(self) -> None:
        since_s = self._monotonic_s() - FORGOTTEN_AFTER_S
        for node_id in [n for n, heard_s in self._heard_s.items() if heard_s < since_s]:
            del self._nodes[node_id], self._heard_s[node_id]


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    digits = port.isascii() and port.isdigit() and len(port) <= 5
    return bool(host) and digits and len(text) <= _LONGEST_ADDRESS and text.isprintable()
