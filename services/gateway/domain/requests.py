"""What is asked of inference nodes, and what comes back piece by piece."""

from __future__ import annotations

import dataclasses
from typing import Literal

from services.gateway.domain import answers, tokens


@dataclasses.dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are chosen, and where the answer ends."""

    max_new_tokens: int = 0
    """0 for the node's default."""
    temperature: float = 0.0
    """0 takes the likeliest token each time."""
    top_p: float = 1.0
    top_k: int = 0
    """0 for all tokens."""
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None
    """Likeliest tokens told beside each one of the answer; None: no log-probabilities."""


@dataclasses.dataclass(frozen=True)
class Conversation:
    """Asks for the next turn."""

    messages: tuple[Message, ...]
    """Any system messages first; a user's last."""
    model: str = "auto"
    """`auto`: the router decides; `base`; the reference of a card."""
    sampling: Sampling = Sampling()
    json_schema: str = ""
    """That the answer, JSON then, has to fit; empty for free text."""
    no_learning: bool = False
    """An unknown question starts no learning."""
    agent: str = ""
    """Whose memory answers; empty for none."""
    max_cards: int = 0
    """That may answer together; 0 for the node's default."""


@dataclasses.dataclass(frozen=True)
class Continuation:
    """Asks for what comes at a place in a text."""

    prefix: str
    suffix: str = ""
    path: str = ""
    """Of the file."""
    model: str = "auto"
    """`auto`: the card of its code base, or the bare base; `base`; the reference of a card."""
    sampling: Sampling = Sampling()


Asked = Conversation | Continuation


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of an answer; the last one has the whole beside it."""

    text: str
    logprobs: tuple[tokens.TokenLogprob, ...] = ()
    final: answers.Answer | None = None
