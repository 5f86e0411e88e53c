"""Compares pairs with one another: those that say the same are one, those that clash are none.

Works on the vectors of questions and answers; see `meaning` for what counts as the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from services.distiller import vectors
from services.distiller.quality import claims, meaning, mixing, verdict
from shared.flight import datasets

Lookup = Mapping[str, vectors.Vectors]
"""The unit vector of each text, shape (dimension,)."""
SAME_STATEMENT = 0.88
"""Least similarity (cosine) of two answers in whole sentences that say the same."""
_LEAST_STATEMENT_WORDS = 6
_NEARLY_ALL = 0.8
"""Share of words that two statements have in common where one contradicts the other."""
_SHORT_STEMS = 4
_SURER_BY = 0.1
"""Of two pairs that contradict each other the surer one stays where its score is so much higher."""
_BLOCK = 512


def texts(pairs: Sequence[datasets.QAPair]) -> list[str]:
    """What has to be embedded."""
    found = (text for pair in pairs for text in (*_questions(pair), pair.answer))
    return list(dict.fromkeys(found))


def unrepeated(pairs: Sequence[datasets.QAPair], vector_of: Lookup) -> verdict.Sifted:
    """Merges pairs that ask the same and have the same answer; drops statements said before.

    The first of them stays, with the wordings of those that have its very answer.
    """
    found: dict[int, datasets.QAPair] = dict(enumerate(pairs))
    rejected: list[verdict.Rejected] = []
    for first, second in _near(pairs, vector_of, meaning.SAME_QUESTION, _questions):
        if first not in found or second not in found:
            continue
        one, other = found[first], found[second]
        asked = _likeness(one.question, other.question, vector_of)
        if (
            one.kind is other.kind
            and meaning.same_answer(one.answer, other.answer)
            and meaning.same_question(one.question, other.question, asked)
        ):
            more = (*one.paraphrases, other.question, *other.paraphrases)
            found[first] = dataclasses.replace(one, paraphrases=tuple(dict.fromkeys(more)))
            rejected.append(_rejected(found.pop(second), verdict.Reason.DUPLICATE, one.question))
    for first, second in _near(pairs, vector_of, SAME_STATEMENT, _answers):
        if first in found and second in found and _same_statement(found[first], found[second]):
            other = found.pop(second)
            rejected.append(_rejected(other, verdict.Reason.DUPLICATE, found[first].answer))
    return verdict.Sifted(tuple(found.values()), tuple(rejected))


def consistent(pairs: Sequence[datasets.QAPair], vector_of: Lookup) -> verdict.Sifted:
    """Rejects pairs that contradict another one: nobody here knows which of them is right.

    Only where one of them is clearly surer, by its score, does that one stay. A near miss has
    another answer on purpose, so it is held to the wording alone.
    """
    against: dict[int, str] = {}
    near = {
        *_near(pairs, vector_of, meaning.SAME_QUESTION, _questions),
        *_near(pairs, vector_of, SAME_STATEMENT, _answers),
    }
    for first, second in sorted(near):
        one, other = pairs[first], pairs[second]
        if datasets.Kind.CONTRAST in (one.kind, other.kind) and one.kind is not other.kind:
            continue
        why = _contradiction(one, other, vector_of) or _opposed(one, other)
        if not why or mixing.are_apart(one, other, vector_of):
            continue
        if one.score < other.score + _SURER_BY:
            against.setdefault(first, f"{why}; {other.question} {other.answer}")
        if other.score < one.score + _SURER_BY:
            against.setdefault(second, f"{why}; {one.question} {one.answer}")
    return verdict.sift(
        (pair, (verdict.Reason.CONTRADICTED, against[at]) if at in against else None)
        for at, pair in enumerate(pairs)
    )


def _contradiction(one: datasets.QAPair, other: datasets.QAPair, vector_of: Lookup) -> str:
    """Why two answers to one question can't both be right; empty where they can."""
    same = [
        (left, right)
        for left in _questions(one)
        for right in _questions(other)
        if meaning.same_question(left, right, _likeness(left, right, vector_of))
    ]
    if not same:
        return ""
    surely = any(meaning.same_words(left, right) for left, right in same)
    answered = _likeness(one.answer, other.answer, vector_of)
    return meaning.clash(one.answer, other.answer, answered, surely)


def _is_short(pair: datasets.QAPair) -> bool:
    return len(claims.stems(pair.answer)) <= _SHORT_STEMS


def _opposed(one: datasets.QAPair, other: datasets.QAPair) -> str:
    """Why two statements in nearly the same words can't both be right; empty where they can."""
    left, right = claims.stems(one.answer), claims.stems(other.answer)
    if all(map(_questions, (one, other))):
        return ""
    if len(left & right) < _NEARLY_ALL * len(left | right):
        return ""
    if word := claims.flipped(one.answer, other.answer):
        return f"one says the opposite about {word}"
    numbers = claims.numbers(one.answer), claims.numbers(other.answer)
    if numbers[0] and numbers[1] and not (numbers[0] <= numbers[1] or numbers[1] <= numbers[0]):
        return f"numbers differ: {', '.join(sorted(numbers[0] ^ numbers[1])[:4])}"
    return ""


def _same_statement(one: datasets.QAPair, other: datasets.QAPair) -> bool:
    return (
        one.kind is other.kind is datasets.Kind.IMPLICATION
        and min(len(one.answer.split()), len(other.answer.split())) >= _LEAST_STATEMENT_WORDS
        and claims.numbers(one.answer) == claims.numbers(other.answer)
        and not claims.flipped(one.answer, other.answer)
    )


def _near(
    pairs: Sequence[datasets.QAPair],
    vector_of: Lookup,
    least: float,
    parts: Callable[[datasets.QAPair], Sequence[str]],
) -> Iterator[tuple[int, int]]:
    """Positions (first, second) of pairs of which some parts are so similar, in order."""
    owners = [at for at, pair in enumerate(pairs) for _ in parts(pair)]
    if not owners:
        return
    rows_ND = np.stack([vector_of[text] for pair in pairs for text in parts(pair)])
    found = set[tuple[int, int]]()
    for start in range(0, len(owners), _BLOCK):
        likeness_BN = rows_ND[start : start + _BLOCK] @ rows_ND.T
        for row, column in np.argwhere(likeness_BN >= least):
            first, second = owners[start + int(row)], owners[int(column)]
            if first < second:
                found.add((first, second))
    yield from sorted(found)


def _questions(pair: datasets.QAPair) -> tuple[str, ...]:
    """By which pairs are compared: a long statement that follows from a fact speaks for itself.

    What follows may be said in many ways, each with names of its own.
    """
    if pair.kind is datasets.Kind.IMPLICATION and not _is_short(pair):
        return ()
    return (pair.question, *pair.paraphrases)


def _answers(pair: datasets.QAPair) -> tuple[str, ...]:
    return (pair.answer,)


def _likeness(one: str, other: str, vector_of: Lookup) -> float:
    return float(vector_of[one] @ vector_of[other])


def _rejected(pair: datasets.QAPair, reason: verdict.Reason, detail: str) -> verdict.Rejected:
    return verdict.Rejected(pair, reason, detail)
