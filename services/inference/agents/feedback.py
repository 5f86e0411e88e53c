"""What agents are told, question and right answer, and what may be told.

Knows nothing of how it is kept or learned.
"""

from __future__ import annotations

import dataclasses
import enum
import re
import unicodedata
from collections.abc import Sequence

from shared import errors

LONGEST_TEXT = 8_000
"""Characters of a question or an answer of feedback."""
MOST_PAIRS = 1_000
"""Of one call."""
SHARED = "shared"
"""Whose memory an agent has that was told nothing; no agent's name."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LINES = "\n\r\t"


class Reason(enum.StrEnum):
    """Why a pair was given up."""

    ROUNDS = "rounds"
    """After as many rounds as may be the agent still answers otherwise."""
    CONTESTED = "contested"
    """It was learned several times, and others' learning has taken it away each time."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """A question with its right answer."""

    question: str
    answer: str


@dataclasses.dataclass(frozen=True)
class Queued:
    """A pair that is to be learned."""

    id: int
    pair: Pair
    taken: int = 0
    """Rounds in which it took part."""
    left: int = 0
    """Rounds in which it may still take part."""


@dataclasses.dataclass(frozen=True)
class GivenUp:
    """A pair that is learned no more."""

    pair: Pair
    reason: Reason


@dataclasses.dataclass(frozen=True)
class Given:
    """What became of a call with feedback."""

    accepted: int
    queued: int
    """Pairs of the agent that are not learned yet."""


def check_name(agent: str) -> None:
    """Checks the name of an agent.

    Raises:
        errors.InvalidInputError: it can't be one.
    """
    if not _NAME.fullmatch(agent):
        raise errors.InvalidInputError(
            f"agent {agent[:80]!r}: give 1 to 64 letters, digits, dots, dashes and underscores, "
            "first a letter or digit"
        )
    if agent == SHARED:
        raise errors.InvalidInputError(
            f"agent {agent!r}: so is called what agents share; give it another name"
        )


def check(agent: str, pairs: Sequence[Pair]) -> None:
    """Checks a name and what is to be learned.

    Raises:
        errors.InvalidInputError: names what is wrong.
    """
    check_name(agent)
    if not 0 < len(pairs) <= MOST_PAIRS:
        raise errors.InvalidInputError(
            f"agent {agent!r}: {len(pairs)} pairs; give 1 to {MOST_PAIRS} in one call"
        )
    for at, pair in enumerate(pairs):
        for field, text in (("question", pair.question), ("answer", pair.answer)):
            if not text.strip() or len(text) > LONGEST_TEXT:
                raise errors.InvalidInputError(
                    f"pairs[{at}].{field} has {len(text):,} characters; give 1 to "
                    f"{LONGEST_TEXT:,}, not blank"
                )
            if odd := next((one for one in text if _is_control(one)), None):
                raise errors.InvalidInputError(
                    f"pairs[{at}].{field} has the control character U+{ord(odd):04X}; leave it out"
                )


def _is_control(character: str) -> bool:
    return unicodedata.category(character) == "Cc" and character not in _LINES
