"""Inference nodes."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Swap:
    """How fast an inference node took in a card."""

    card: str
    fetch_ms: float
    swap_ms: float


@dataclasses.dataclass(frozen=True)
class Node:
    """One inference node."""

    base_model: str
    served: tuple[str, ...]
    """Cards that requests may choose, `name@digest`."""
    resident: tuple[str, ...]
    """Those of them that are in memory."""
    revision: int
    store_connected: bool
    swaps: tuple[Swap, ...]
    node_id: str = ""
    base_fingerprint: str = ""
    pinned: tuple[str, ...] = ()
    """Those that stay in memory."""
    held_bytes: int = 0
    """Memory of the resident cards."""
    running: int = 0
    """Answers that are being generated,"""
    most_rows: int = 0
    """and how many can be at once."""
    waiting: int = 0
    """Requests that wait for their turn,"""
    queue: int = 0
    """and how many may."""
