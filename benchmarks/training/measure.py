"""Everything in the area, in order."""

from __future__ import annotations

from benchmarks import results
from benchmarks.training import bad_cards, quality, speed


def measure() -> list[results.Row]:
    """The rows of all parts; three hours, most of them for good and bad cards on one core."""
    return [*speed.rows(), *quality.rows(), *bad_cards.measure()]
