"""How busy a node is, and what it can take."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Load:
    """At one moment."""

    running: int
    """Answers that are being generated."""
    waiting: int
    """Requests that wait for their turn or for their card."""
    most_rows: int
    """Answers that are generated together at most."""
    queue: int
    """Requests that may wait."""
    max_new_tokens: int
    """Of an answer whose request does not say."""
    context_tokens: int | None
    """For prompt and answer together; None where the model does not say."""
