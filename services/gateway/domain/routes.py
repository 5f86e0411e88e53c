"""What the router says of itself and of a question."""

from __future__ import annotations

import dataclasses

_FEATURES = {
    "nearest": "like a question it knows",
    "remoteness": "far from the middle of those",
    "kin": "like three of those, as cards differ",
    "boundary": "on its side of its neighbours",
    "lexical": "words in common",
    "said": "like what it says",
    "anchor": "names its subject",
    "anchor squared": "names all of its subject",
    "shared": "a rare word that it has",
    "foreign": "a rare word that it has not",
    "misnamed": "a name that it has not",
    "unexplained": "share of words that it has not",
}


def feature(name: str) -> str:
    """What the router weighs, in words of people.

    Args:
        name: as an explanation has it.
    """
    return _FEATURES.get(name, name)


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


@dataclasses.dataclass(frozen=True)
class Bin:
    """Questions whose first card was said to be about equally probable."""

    probability: float
    """Mean of what was said (0 to 1)."""
    share: float
    """Of them that came true (0 to 1)."""
    mass: float
    """Weight among all, which sum to 1."""


@dataclasses.dataclass(frozen=True)
class Router:
    """The router."""

    cards: int
    """In its index."""
    revision: int
    """The last that it followed."""
    threshold: float
    """Below this confidence a question is a gap."""
    embedder_id: str
    events_emitted: int
    events_delivered: int
    events_dropped: int
    events_waiting: int
    calibration_error: float | None
    """Expected, out of sample (0 to 1); None where there is nothing to measure."""
    calibration_rows: int
    """Questions that it stands on."""
    bins: tuple[Bin, ...]
    """Those questions, the least probable first."""
