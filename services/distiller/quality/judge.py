"""A judge by round trip: the teacher is asked the same questions once more, and has to agree.

An answer that a language model makes up seldom comes twice (round-trip consistency, Alberti et al.
2019). It sees the pair's passage, where there is one, but never the first answer. Each call is an
ordinary one to the teacher, so it is counted, budgeted and remembered like every other.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Awaitable, Callable, Sequence, Set

from services.distiller import wording
from services.distiller.providers import base
from services.distiller.quality import claims, meaning, quantities, verdict
from shared import grading
from shared.flight import datasets

Ask = Callable[[base.QARequest], Awaitable[Sequence[datasets.QAPair]]]
"""Asks the teacher; a call that was answered before, perhaps before a restart, is not made again.
What the teacher does not know comes back as no pairs."""
_Second = dict[tuple[str, str, str], str]
"""The second answer by teacher, passage and key of the question."""
_POLAR = (["yes"], ["no"])
_SENTENCE_WORDS = 3
_MOST_WORDS_BESIDE = 4
"""Of answers that are hardly more than the numbers in them."""
_TOKENS = re.compile(r"[\u2e80-\uffff]|[^\W\u2e80-\uffff]+")
"""Characters of scripts without spaces between words, else words."""


async def agreed(
    pairs: Sequence[datasets.QAPair],
    ask: Ask,
    queries_a_call: int,
    threshold: float,
    repeats: Set[str] = frozenset(),
) -> verdict.Sifted:
    """Rejects pairs that the teacher would answer otherwise.

    Args:
        pairs: any.
        ask: see `Ask`.
        queries_a_call: most questions in one call.
        threshold: least agreement, 0 to 1.
        repeats: teachers that it would tell nothing to ask again.
    """
    doubtful = [pair for pair in pairs if pair.teacher not in repeats]
    second = _Second()
    for call in _calls(doubtful, queries_a_call):
        for told in await ask(call):
            for text in (told.question, *told.paraphrases):
                second.setdefault((call.teacher, call.passage, wording.key(text)), told.answer)
    return verdict.sift(
        (pair, None if pair.teacher in repeats else _doubt(pair, second, threshold))
        for pair in pairs
    )


def agreement(one: str, other: str) -> float | None:
    """How far two answers to one question agree, 0 to 1: SQuAD's F1 over their words.

    Nothing where that can't be told: a bare yes or no may mean what a sentence says.
    """
    if meaning.same_answer(one, other):
        return 1.0
    one, other = quantities.plain(one), quantities.plain(other)
    left, right = grading.normalise(one), grading.normalise(other)
    for polar, words in ((left, right), (right, left)):
        if polar in _POLAR and len(words) >= _SENTENCE_WORDS and not {"yes", "no"} & set(words):
            return None
    if meaning.clash(one, other, 0.0, True):
        return 0.0
    numbers = claims.numbers(one)
    units = quantities.units(one), quantities.units(other)
    if (
        numbers
        and numbers == claims.numbers(other)
        and max(len(left), len(right)) <= _MOST_WORDS_BESIDE
        and (units[0] == units[1] or not all(units))
    ):
        return 1.0
    if claims.east_asian(one + other):
        left, right = (_TOKENS.findall(" ".join(words)) for words in (left, right))
    shared = (collections.Counter(left) & collections.Counter(right)).total()
    return 2 * shared / (len(left) + len(right)) if shared else 0.0


def _calls(pairs: Sequence[datasets.QAPair], queries_a_call: int) -> list[base.QARequest]:
    # Another teacher of a chain may know better, which says nothing about this one.
    asked: dict[tuple[str, str], list[str]] = {}
    for pair in pairs:
        asked.setdefault((pair.teacher, pair.passage), []).append(pair.question)
    return [
        base.QARequest(
            topic="",
            queries=tuple(questions[at : at + queries_a_call]),
            count=len(questions[at : at + queries_a_call]),
            wordings=0,
            passage=passage,
            only_queries=True,
            teacher=teacher,
        )
        for (teacher, passage), questions in asked.items()
        for at in range(0, len(questions), queries_a_call)
    ]


def _doubt(
    pair: datasets.QAPair, second: _Second, threshold: float
) -> tuple[verdict.Reason, str] | None:
    answer = second.get((pair.teacher, pair.passage, wording.key(pair.question)))
    if answer is None:
        return verdict.Reason.DOUBTED, "asked again, the teacher had no answer"
    reached = agreement(pair.answer, answer)
    if reached is None or reached >= threshold:
        return None
    return verdict.Reason.DOUBTED, f"asked again, the teacher said ({reached:.2f}): {answer}"
