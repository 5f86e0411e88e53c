"""What the router reports: a question for which no card fits, from which a task may start.

Pure values; knows nothing of tasks.
"""

from __future__ import annotations

import dataclasses

from shared import answer_signals, errors

LONGEST_QUERY = 4000
"""Characters of a question or topic."""


@dataclasses.dataclass(frozen=True)
class CognitiveDissonance:
    """A question for which no card fits."""

    event_id: str
    query: str
    confidence: float
    detected_at_ms: int
    """Unix time."""
    signals: answer_signals.AnswerSignals | None = None
    """None where nobody told them."""
    domain: str = ""
    """Of the nearest card, where one is near."""
    tenant: str = ""
    """Whose question it is, where callers have tenants."""
    traceparent: str = ""
    """Of the question's trace; empty where it has none."""

    def __post_init__(self) -> None:
        """Refuses an event that nothing could be learned from."""
        if not self.event_id:
            raise errors.InvalidInputError("event_id is empty: it is what counts an event once")
        check_text("query", self.query)


def check_text(field: str, text: str) -> None:
    """Refuses what nothing could be learned from.

    Raises:
        errors.InvalidInputError: the text is empty or too long; names the field.
    """
    if not text.strip():
        raise errors.InvalidInputError(f"{field} is empty")
    if len(text) > LONGEST_QUERY:
        raise errors.InvalidInputError(
            f"{field} has {len(text)} characters; at most {LONGEST_QUERY} are taken"
        )
