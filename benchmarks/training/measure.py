"""Everything in the area, in order."""

from __future__ import annotations

from benchmarks import results
from benchmarks.training import speed


def measure() -> list[results.Row]:
    """The rows of all parts."""
    return [*speed.rows()]
