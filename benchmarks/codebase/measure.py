"""Everything in the area, in order."""

from __future__ import annotations

from benchmarks import results
from benchmarks.codebase import extraction


def measure() -> list[results.Row]:
    """The rows of all parts; a quarter of an hour on one core."""
    # Here, so that torch is not in the memory of the process that measures the extraction.
    from benchmarks.codebase import learning

    return [*extraction.rows(), *learning.rows()]
