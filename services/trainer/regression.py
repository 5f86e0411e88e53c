"""What a new version of a card must not forget: what the version before was trained on.

Pure; the gate asks the questions. Left out is what the new dataset says otherwise, since then the
old answer is outdated, and facts that nobody had asked for and that made room for others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from services.trainer import gate
from shared import grading, questions
from shared.cards import card as cards
from shared.flight import datasets


@dataclasses.dataclass(frozen=True)
class Previous:
    """The version before the one that is proved."""

    card: cards.LoRACard
    pairs: tuple[datasets.QAPair, ...]
    """What it was trained on."""


def expected(
    before: Sequence[datasets.QAPair], now: Sequence[datasets.QAPair]
) -> list[tuple[str, str]]:
    """Questions with the answers that are still due.

    Args:
        before: what the old version was trained on.
        now: what the new one is.
    """
    told = {
        questions.fold(text): pair.answer
        for pair in now
        for text in (pair.question, *pair.paraphrases, *pair.held_out)
    }
    found = []
    for pair in before:
        wordings = dict.fromkeys((pair.question, *pair.paraphrases))
        answers = [told[key] for text in wordings if (key := questions.fold(text)) in told]
        if pair.kind is not datasets.Kind.FACT:
            continue
        if answers and not any(grading.is_right(answer, pair.answer) for answer in answers):
            continue
        if not answers and pair.score <= datasets.UNASKED_SCORE:
            continue
        found += [(text, pair.answer) for text in wordings]
    return found


def row(
    ask: gate.Ask, ask_before: gate.Ask, due: Sequence[tuple[str, str]], required: float
) -> gate.Row:
    """Of what the old version answers right: how much the new one does.

    Args:
        ask: answers with the new version active.
        ask_before: with the old one.
        due: see `expected`.
        required: share.
    """
    asked = [question for question, _ in due]
    known = [
        (question, wanted)
        for answer, (question, wanted) in zip(_all(ask_before, asked), due, strict=True)
        if grading.is_right(answer, wanted)
    ]
    given = _all(ask, [question for question, _ in known])
    wrong = tuple(
        question
        for answer, (question, wanted) in zip(given, known, strict=True)
        if not grading.is_right(answer, wanted)
    )
    return gate.Row("regression", len(known) - len(wrong), len(known), required, wrong=wrong)


def _all(ask: Callable[[Sequence[str]], list[str]], asked: Sequence[str]) -> list[str]:
    return ask(asked) if asked else []
