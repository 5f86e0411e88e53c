"""Tokens of answers, and how likely they were."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Likely:
    """A token and how likely it was."""

    token: str
    utf8: bytes
    """A character may spread over several tokens."""
    logprob: float


@dataclasses.dataclass(frozen=True)
class TokenLogprob(Likely):
    """A token of an answer."""

    top: tuple[Likely, ...] = ()
    """The likeliest in its place, likeliest first."""
