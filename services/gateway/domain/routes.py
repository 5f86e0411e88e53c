"""What the router says of a question."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Route:
    """The best card for a question, if one fits."""

    card: str = ""
    """`name@digest`; empty where the bare base model is to answer."""
    reading: str = ""
    """The question of the card's training that asks the same; empty where none is known."""
    similarity: float = 0.0
    """Cosine of the question to that one."""
    confidence: float = 0.0
    dissonance: bool = False
    event_id: str = ""
    """Of the dissonance event; empty where none left."""
