"""When one wording is a near copy of another: the same words but for politeness and order.

By resemblance of word sequences (Broder 1997), exact rather than estimated by MinHash: a skill has
hundreds of wordings, not millions.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence

from services.distiller import wording
from services.distiller.documents import words

NEAR_COPY = 0.8
"""Resemblance from which two wordings are one for training: one of them says it all."""
NEAR_HELD_OUT = 0.6
"""Resemblance from which a held-out wording would tell nothing new about the trained ones."""
_POLITE = frozenset(
    "please can could would you tell me i do does did know to is are was were be".split()
)


def distinct(texts: Sequence[str], kept: Iterable[str] = ()) -> list[str]:
    """The texts that are no near copies of one before, the first always among them.

    Args:
        texts: wordings of one question.
        kept: keys (`wording.key`) of those that stay whatever they are like.
    """
    always, found = frozenset(kept), list[str]()
    for text in texts:
        told = _shingles(wording.key(text).split())
        if wording.key(text) in always or not any(
            _jaccard(told, _shingles(wording.key(other).split())) >= NEAR_COPY for other in found
        ):
            found.append(text)
    return found


def near(text: str, others: Iterable[str], least: float) -> bool:
    """Whether a wording, but for politeness, resembles one of the others at least so much."""
    return any(resemblance(text, other) >= least for other in others)


def resemblance(one: str, other: str) -> float:
    """Jaccard similarity of two wordings' stems and neighbouring stems, 0 to 1."""
    return _jaccard(_plain(one), _plain(other))


@functools.lru_cache(maxsize=16384)
def _plain(text: str) -> frozenset[tuple[str, ...]]:
    """The shingles of a wording without what politeness and word order add."""
    told = wording.key(text).split()
    return _shingles([words.stem(word) for word in told if word not in _POLITE] or told)


def _shingles(told: Sequence[str]) -> frozenset[tuple[str, ...]]:
    return frozenset([*((one,) for one in told), *itertools.pairwise(told)])


def _jaccard(left: frozenset[tuple[str, ...]], right: frozenset[tuple[str, ...]]) -> float:
    return len(left & right) / (len(left | right) or 1)
