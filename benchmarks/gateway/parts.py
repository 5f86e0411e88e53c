"""Everything in the area, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks import results
from benchmarks.gateway import fleet_cost, kills, overhead, soak, throughput
from shared import terminal

MINUTES = 10.0
"""Of the soak, and of the kills."""
ROUNDS = throughput.ROUNDS
PARTS = ("overhead", "fleet", "throughput", "soak", "kills")


def measure() -> list[results.Row]:
    """Takes most of an hour."""
    return measured(PARTS)


def measured(
    names: Sequence[str], minutes: float = MINUTES, rounds: int = ROUNDS, seed: int = 0
) -> list[results.Row]:
    """Some parts.

    Args:
        names: out of `PARTS`.
        minutes: of the soak, and of the kills.
        rounds: of the throughput.
        seed: of who is killed.
    """
    ways: dict[str, Callable[[], list[results.Row]]] = {
        "overhead": overhead.measure,
        "fleet": fleet_cost.measure,
        "throughput": lambda: throughput.measure(rounds),
        "soak": lambda: soak.measure(minutes),
        "kills": lambda: kills.measure(minutes, seed),
    }
    found: list[results.Row] = []
    for name in names:
        terminal.NOTES.print(f"gateway: {name}")
        found += ways[name]()
    return found
