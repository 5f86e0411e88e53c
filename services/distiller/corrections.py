"""Facts that people corrected: how they are told from others, and what they replace.

A correction takes the wordings of the fact it replaces over, so that none of them is taught with
the old answer again. Pure but for the embedder that it is given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from services.distiller import filters, vectors, wording
from services.distiller.documents import words
from services.distiller.quality import meaning
from shared import grading
from shared.flight import datasets

TEACHER = "correction"
"""As the teacher of a pair: a person gave the answer."""
_SURE = 1.0
_COMPARED = 5
"""Wordings of a fact that are compared by meaning."""

Lookup = Mapping[str, vectors.Vectors]
"""The unit vector of each text, shape (dimension,)."""


def fact(question: str, answer: str) -> datasets.QAPair:
    """A correction as a pair."""
    return datasets.QAPair(question, answer, (), TEACHER, TEACHER, _SURE)


def passage(pairs: Sequence[datasets.QAPair]) -> str:
    """What a teacher is given who is asked for other wordings alone."""
    return "\n".join(f"{pair.question} {pair.answer}" for pair in pairs)


async def applied(
    told: Sequence[datasets.QAPair],
    before: Sequence[datasets.QAPair],
    embed: vectors.AsyncEmbed | None,
    wrong: Mapping[str, str] | None = None,
) -> tuple[list[datasets.QAPair], list[datasets.QAPair]]:
    """Puts corrections in the place of the facts that they correct.

    Args:
        told: the corrections; of one question one.
        before: other pairs.
        embed: makes sentence vectors; without it only facts asked in the same words are found.
        wrong: of questions the answers that were given, and were wrong.

    Returns:
        The corrections with the wordings of what they replace, and what is left of the others.
    """
    if not told or not before:
        return list(told), list(before)
    asked = [pair.question for pair in told]
    compared = [text for pair in before for text in _compared(pair)]
    vector_of: Lookup = {}
    if embed is not None:
        texts = list(dict.fromkeys([*asked, *compared]))
        vector_of = dict(zip(texts, await embed(texts), strict=True))
    corrected, left = list[datasets.QAPair](), list(before)
    for pair in told:
        given = (wrong or {}).get(pair.question, "")
        replaced = [other for other in left if _asks_the_same(pair, other, vector_of)]
        nearest = _nearest(pair, given, left, vector_of)
        if nearest is not None and nearest not in replaced:
            replaced.append(nearest)
        wanted = words.wanted(pair.question)
        taken_over = [
            text
            for other in replaced
            for text in filters.wordings(other)
            if not words.clash(wanted, words.wanted(text))
        ]
        fresh = dict.fromkeys((*pair.paraphrases, *pair.held_out, *taken_over))
        corrected.append(dataclasses.replace(pair, paraphrases=tuple(fresh), held_out=()))
        left = [
            other
            for other in left
            if other not in replaced and not _follows(other, replaced, pair.answer)
        ]
    return filters.merged(corrected), left


def _asks_the_same(pair: datasets.QAPair, other: datasets.QAPair, vector_of: Lookup) -> bool:
    own = {wording.key(text) for text in filters.wordings(pair)}
    if any(wording.key(text) in own for text in filters.wordings(other)):
        return True
    return other.kind is datasets.Kind.FACT and any(
        meaning.same_question(pair.question, text, _likeness(pair.question, text, vector_of))
        for text in _compared(other)
    )


def _nearest(
    pair: datasets.QAPair, given: str, before: Sequence[datasets.QAPair], vector_of: Lookup
) -> datasets.QAPair | None:
    """The fact from which the wrong answer came, where it is plain that it came from one."""
    if not given or not vector_of:
        return None
    wanted = words.wanted(pair.question)
    found = [
        (_likeness(pair.question, text, vector_of), at)
        for at, other in enumerate(before)
        if other.kind is datasets.Kind.FACT and grading.is_right(given, other.answer)
        for text in _compared(other)
        if not words.clash(wanted, words.wanted(text))
    ]
    return before[max(found)[1]] if found else None


def _follows(other: datasets.QAPair, replaced: Sequence[datasets.QAPair], answer: str) -> bool:
    """Whether a pair says by implication what is not so any more."""
    return other.kind is datasets.Kind.IMPLICATION and any(
        meaning.same_answer(other.answer, one.answer)
        and not meaning.same_answer(other.answer, answer)
        for one in replaced
    )


def _compared(pair: datasets.QAPair) -> list[str]:
    return filters.wordings(pair)[:_COMPARED]


def _likeness(one: str, other: str, vector_of: Lookup) -> float:
    if one not in vector_of or other not in vector_of:
        return 0.0
    return float(np.dot(vector_of[one], vector_of[other]))
