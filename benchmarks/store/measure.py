"""Everything in the area, in order."""

from __future__ import annotations

from benchmarks import results
from benchmarks.store import catalogue, publishing, transfers
from shared import terminal


def measure() -> list[results.Row]:
    """Takes some minutes."""
    rows: list[results.Row] = []
    for what, part in (
        ("from a publication to three nodes", publishing.served),
        ("watchers", publishing.notified),
        ("commits", publishing.commits),
        ("transfers", transfers.measure),
        ("a hundred thousand cards", catalogue.measure),
    ):
        terminal.NOTES.print(f"store: {what}")
        rows += part()
    return rows
