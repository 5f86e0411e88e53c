"""When two wordings count as the same question, and when two answers count as the same."""

from __future__ import annotations

from shared import grading


def key(text: str) -> str:
    """Equal for texts that differ only in case, spacing, punctuation and articles."""
    return " ".join(grading.normalise(text))
