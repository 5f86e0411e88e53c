"""Answers, as a node gave them."""

from __future__ import annotations

import dataclasses

from services.gateway.domain import tokens


@dataclasses.dataclass(frozen=True)
class Answer:
    """What an inference node answered."""

    text: str
    card: str
    """`name@digest`; empty where the bare base model answered."""
    confidence: float
    dissonance: bool
    event_id: str
    """Of the dissonance event; empty where none left."""
    rewritten_query: str = ""
    """What the card was asked; empty where it was the question itself."""
    shares: tuple[tuple[str, float], ...] = ()
    """All cards that answered, merged, with their weights; the heaviest first."""
    memory: str = ""
    """AGENT@VERSION whose memory took part; empty without one."""
    prompt_tokens: int = 0
    new_tokens: int = 0
    finish: str = "stop"
    """`stop`, or `length` where more was to come."""
    node: str = ""
    """Address of the node that answered."""


@dataclasses.dataclass(frozen=True)
class Whole:
    """An answer that came in one piece."""

    answer: Answer
    logprobs: tuple[tokens.TokenLogprob, ...] = ()
    """Of all tokens, where they were asked for."""
