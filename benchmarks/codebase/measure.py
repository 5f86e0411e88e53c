"""Everything in the area, in order."""

from __future__ import annotations

from benchmarks import results
from benchmarks.codebase import extraction, learning


def measure() -> list[results.Row]:
    """The rows of all parts; about a quarter of an hour on one core, most of it for the cards."""
    return [*extraction.rows(), *learning.rows()]
