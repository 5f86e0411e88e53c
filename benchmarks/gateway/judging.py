"""What a request under load came to: right, failed in a way that a retry mends, or wrong."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any

import httpx
import openai

RETRYABLE = ("503", "429", "connection")
"""Kinds of failure that tell a client to ask again, before it has read a word."""
CUT_OFF = "cut_off"
"""A stream whose node or gateway died behind its first word; the client is told."""
_BROKEN = (httpx.TransportError, openai.APIConnectionError)


@dataclasses.dataclass(frozen=True)
class Expected:
    """Who must answer, and what."""

    card: str
    """`name@digest`; empty: the bare base model."""
    text: str


@dataclasses.dataclass
class Tally:
    """Counts requests."""

    requests: int = 0
    streamed: int = 0
    """Of them."""
    failures: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """By kind."""
    wrong: list[str] = dataclasses.field(default_factory=list)
    """Answers of another card, or that their card does not give."""
    told: list[str] = dataclasses.field(default_factory=list)
    """The words of failures that no retry mends."""

    @property
    def unexpected(self) -> int:
        """Failures of other kinds than clients are made for."""
        known = (*RETRYABLE, CUT_OFF)
        return sum(count for kind, count in self.failures.items() if kind not in known)

    def failed(self, error: Exception, words: int) -> None:
        """Counts a request that failed behind so many words."""
        kind = kind_of(error, words)
        self.failures[kind] += 1
        if kind not in RETRYABLE:
            self.told.append(f"{kind}: {type(error).__name__} {error}"[:300])

    def answered(self, expected: Expected | None, extras: Mapping[str, Any], text: str) -> None:
        """Counts an answer.

        Args:
            expected: None where the router chose.
            extras: the field `skillmesh`.
            text: of the answer.
        """
        if expected is None:
            return
        card = extras.get("card") or ""
        if (card, text) != (expected.card, expected.text):
            self.wrong.append(
                f"{card or 'base'} said {text!r}; {expected.card or 'base'} says {expected.text!r}"[
                    :300
                ]
            )


class UnendedError(Exception):
    """A stream that ended without an end and without an error."""


def kind_of(error: Exception, words: int) -> str:
    """`503`, another status, `connection`, `cut_off`, or the name of an error.

    Args:
        error: that OpenAI's client raised after its retries.
        words: that had come before.
    """
    if isinstance(error, openai.APIStatusError):
        return str(error.status_code)
    if isinstance(error, openai.APITimeoutError | httpx.TimeoutException):
        return "timeout"  # Whoever is asked has to tell sooner.
    # Of an error that a server tells within a stream the client raises the plain class.
    if isinstance(error, _BROKEN) or type(error) is openai.APIError:
        return CUT_OFF if words else "connection"
    return type(error).__name__
