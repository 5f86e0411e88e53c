"""A judge by round trip: the teacher is asked the same questions once more, and has to agree.

An answer that a language model makes up seldom comes twice (round-trip consistency, Alberti et al.
2019). It sees the pair's passage, where there is one, but never the first answer. Each call is an
ordinary one to the teacher, so it is counted, budgeted and remembered like every other.
"""

from __future__ import annotations

import collections
from collections.abc import Awaitable, Callable, Sequence, Set

from services.distiller import wording
from services.distiller.providers import base
from services.distiller.quality import meaning, verdict
from shared import grading
from shared.flight import datasets

Ask = Callable[[base.QARequest], Awaitable[Sequence[datasets.QAPair]]]
"""Asks the teacher; a call that was answered before, perhaps before a restart, is not made again.
What the teacher does not know comes back as no pairs."""


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
    second: dict[tuple[str, str], str] = {}
    for call in _calls(doubtful, queries_a_call):
        for told in await ask(call):
            for text in (told.question, *told.paraphrases):
                second.setdefault((call.passage, wording.key(text)), told.answer)
    return verdict.sift(
        (pair, None if pair.teacher in repeats else _doubt(pair, second, threshold))
        for pair in pairs
    )


def agreement(one: str, other: str) -> float:
    """How far two answers to one question agree, 0 to 1: SQuAD's F1 over their words."""
    if meaning.same_answer(one, other):
        return 1.0
    if meaning.clash(one, other, 0.0, True):
        return 0.0
    left, right = grading.normalise(one), grading.normalise(other)
    shared = (collections.Counter(left) & collections.Counter(right)).total()
    return 2 * shared / (len(left) + len(right)) if shared else 0.0


def _calls(pairs: Sequence[datasets.QAPair], queries_a_call: int) -> list[base.QARequest]:
    by_passage: dict[str, list[str]] = {}
    for pair in pairs:
        by_passage.setdefault(pair.passage, []).append(pair.question)
    return [
        base.QARequest(
            topic="",
            queries=tuple(questions[at : at + queries_a_call]),
            count=len(questions[at : at + queries_a_call]),
            wordings=0,
            passage=passage,
            only_queries=True,
        )
        for passage, questions in by_passage.items()
        for at in range(0, len(questions), queries_a_call)
    ]


def _doubt(
    pair: datasets.QAPair, second: dict[tuple[str, str], str], threshold: float
) -> tuple[verdict.Reason, str] | None:
    answer = second.get((pair.passage, wording.key(pair.question)))
    if answer is None:
        return verdict.Reason.DOUBTED, "asked again, the teacher had no answer"
    reached = agreement(pair.answer, answer)
    if reached >= threshold:
        return None
    return verdict.Reason.DOUBTED, f"asked again, the teacher said ({reached:.2f}): {answer}"
