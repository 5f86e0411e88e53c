"""Medians of things that take turns."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any


def milliseconds(work: Callable[..., object], *arguments: Any) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    work(*arguments)
    return (time.perf_counter() - started) * 1000


def medians(rounds: int, *works: Callable[[], object]) -> list[float]:
    """Median milliseconds of each; see `in_turn`."""
    return [statistics.median(one) for one in in_turn(rounds, *works)]


def in_turn(rounds: int, *works: Callable[[], object]) -> list[list[float]]:
    """Milliseconds of each work in each round, the garbage collector held off.

    Each runs once before anything counts.
    """
    for work in works:
        work()
    taken: list[list[float]] = [[] for _ in works]
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            # In turn forwards and backwards: whoever comes second finds warmer caches.
            order = range(len(works)) if number % 2 else reversed(range(len(works)))
            for at in order:
                taken[at].append(milliseconds(works[at]))
    finally:
        gc.enable()
    return taken
