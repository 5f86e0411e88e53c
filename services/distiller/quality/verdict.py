"""What the checks say of pairs: which are kept, which are rejected, and why.

Every check is a function from pairs to a `Sifted`. Knows nothing about any check.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
from collections.abc import Iterable, Sequence

from shared.flight import datasets


class Reason(enum.StrEnum):
    """Why a pair is not trained on, in the order in which pairs are checked."""

    SHAPE = "shape"
    """Empty, or it answers with its question."""
    LENGTH = "length"
    """Too long for a fact."""
    PRIVATE = "private"
    """It holds personal data or a secret."""
    LANGUAGE = "language"
    """Not in the language of those who ask."""
    DUPLICATE = "duplicate"
    """Another pair says the same."""
    UNSUPPORTED = "unsupported"
    """Its passage does not say that, or says the opposite."""
    MISPLACED = "misplaced"
    """Its passage says that, but elsewhere than where it speaks of what was asked."""
    CONTRADICTED = "contradicted"
    """Another pair answers the same question otherwise."""
    AMBIGUOUS = "ambiguous"
    """All its wordings stand under other answers, too."""
    DOUBTED = "doubted"
    """The judge would have answered otherwise."""
    SURPLUS = "surplus"
    """Nothing is wrong with it; the skill is full."""


WRONG = frozenset({Reason.UNSUPPORTED, Reason.MISPLACED, Reason.CONTRADICTED, Reason.DOUBTED})
"""Reasons that speak against the teacher, not only against the pair."""


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A pair that is not trained on."""

    pair: datasets.QAPair
    reason: Reason
    detail: str
    """What exactly is wrong, for people."""


@dataclasses.dataclass(frozen=True)
class Sifted:
    """What a check kept, in order, and what it rejected."""

    kept: tuple[datasets.QAPair, ...]
    rejected: tuple[Rejected, ...] = ()


def sift(pairs: Iterable[tuple[datasets.QAPair, tuple[Reason, str] | None]]) -> Sifted:
    """Parts pairs by what was found wrong with each; nothing where it is None."""
    kept, rejected = list[datasets.QAPair](), list[Rejected]()
    for pair, wrong in pairs:
        if wrong is None:
            kept.append(pair)
        else:
            rejected.append(Rejected(pair, *wrong))
    return Sifted(tuple(kept), tuple(rejected))


def counts(rejected: Iterable[Rejected]) -> dict[str, int]:
    """How many were rejected for each reason, in the order of the checks."""
    found = collections.Counter(one.reason for one in rejected)
    return {reason.value: found[reason] for reason in Reason if found[reason]}


def wrong_facts(rejected: Iterable[Rejected]) -> int:
    """How many facts were rejected for a reason that speaks against the teacher."""
    return sum(one.reason in WRONG and one.pair.kind is datasets.Kind.FACT for one in rejected)


def told(rejected: Sequence[Rejected]) -> str:
    """The counts for people, such as `3 unsupported, 1 language`; empty without any."""
    return ", ".join(f"{count} {reason}" for reason, count in counts(rejected).items())
