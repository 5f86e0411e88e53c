"""Whether a pair's own passage says what its answer says.

Numbers and names of an answer have to stand in the passage, its words mostly, and a sentence of
the passage that says nearly the same must not say the opposite. What follows from a passage in
words of its own is held to numbers, names and opposites alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.distiller.documents import reading
from services.distiller.quality import claims, verdict
from shared.flight import datasets

_LEAST_SHARE = 0.5
"""Of a fact's content words that its passage, or its question, has to hold."""
_LEAST_IMPLIED_SHARE = 0.15
"""Of an implication's: one that shares nearly no word speaks of something else."""
_SAME_SENTENCE_SHARE = 0.7
_LEAST_STEMS = 3
"""Shorter answers deny nothing by themselves."""
_SMALL_NUMBERS = frozenset(str(value) for value in range(13))
"""An implication may count what its passage lists."""


def supported(pairs: Sequence[datasets.QAPair]) -> verdict.Sifted:
    """Rejects pairs that their own passage does not support; those without one pass."""
    return verdict.sift((pair, _unsupported(pair)) for pair in pairs)


def sentences(passage: str) -> list[str]:
    """The sentences of a passage, a line never running into the next."""
    return [text for line in passage.splitlines() for text in reading.sentences(line)]


def _unsupported(pair: datasets.QAPair) -> tuple[verdict.Reason, str] | None:
    if not pair.passage:
        return None
    told = (pair.passage, pair.question)

    def says(word: str) -> bool:
        return any(claims.says_name(word, text) for text in told)

    new = claims.numbers(pair.answer).difference(*map(claims.numbers, told))
    if pair.kind is datasets.Kind.IMPLICATION:
        new -= _SMALL_NUMBERS
    if new:
        return _wrong(f"its passage has no {min(new)}")
    unnamed = [name for name in claims.names(pair.answer) if not says(name)]
    if unnamed:
        return _wrong(f"its passage does not name {min(unnamed)}")
    said = claims.stems(pair.answer)
    missing = [stem for stem in said if not says(stem)]
    least = _LEAST_SHARE if pair.kind is datasets.Kind.FACT else _LEAST_IMPLIED_SHARE
    if said and 1 - len(missing) / len(said) < least:
        return _wrong(f"its passage does not speak of {', '.join(sorted(missing)[:3])}")
    return _opposed(pair, said)


def _opposed(pair: datasets.QAPair, said: frozenset[str]) -> tuple[verdict.Reason, str] | None:
    if len(said) < _LEAST_STEMS:
        return None
    for sentence in sentences(pair.passage):
        shared = len(said & claims.stems(sentence)) / len(said)
        if shared >= _SAME_SENTENCE_SHARE and (word := claims.flipped(pair.answer, sentence)):
            return _wrong(f"its passage says the opposite about {word}: {sentence[:120]}")
    return None


def _wrong(detail: str) -> tuple[verdict.Reason, str]:
    return verdict.Reason.UNSUPPORTED, detail
