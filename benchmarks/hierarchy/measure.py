"""Everything in the area, in order."""

from __future__ import annotations

from benchmarks import results
from benchmarks.hierarchy import (
    ablation_rows,
    determinism,
    latency,
    learning_rows,
    resonance_rows,
    ticks,
)


def measure() -> list[results.Row]:
    """The rows of all parts; about four hours, most of them for courses, a core each."""
    return [
        *learning_rows.rows(),
        *ablation_rows.rows(),
        *latency.rows(),
        *_determinism(),
        *resonance_rows.rows(),
        *ticks.rows(),
    ]


def _determinism() -> list[results.Row]:
    found = determinism.counted()
    return [
        results.Row(
            "different_generations",
            float(found.different),
            "",
            most=0.0,
            note=f"of {found.generations} on {found.versions} snapshots, while {found.updates} "
            f"others came and {found.steps} steps of other work ran between the tokens",
        )
    ]
