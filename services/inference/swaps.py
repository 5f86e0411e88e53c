"""The cards that came to be served lately, and how long each took."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable

_KEPT = 100


@dataclasses.dataclass(frozen=True)
class SwapRecord:
    """One card that came to be served."""

    card: str
    """`name@digest`."""
    fetch_ms: float
    """From the news to the card's file being here and checked."""
    swap_ms: float
    """From then until requests could choose it."""
    at_ms: int
    """Unix time."""


class Swaps:
    """The latest of them."""

    def __init__(self) -> None:
        """Begins without any."""
        self._latest: collections.deque[SwapRecord] = collections.deque(maxlen=_KEPT)
        self.on_swap: Callable[[SwapRecord], None] = lambda _: None
        """Is told of each."""

    def add(self, swap: SwapRecord) -> None:
        """Notes one."""
        self._latest.append(swap)
        self.on_swap(swap)

    def latest(self) -> list[SwapRecord]:
        """The newest last."""
        return list(self._latest)
