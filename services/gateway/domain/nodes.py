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
