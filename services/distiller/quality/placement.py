"""Whether an answer stands where its passage speaks of what was asked.

Answers that were mixed up between the questions of one passage all stand in that passage. The
ranker of `documents`, which was fitted on questions about Wikipedia passages, says which sentence
answers a question; a fact whose answer stands only in sentences that it thinks impossible is
misplaced, and so is one that names no number where it is asked how many.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from services.distiller import vectors, wording
from services.distiller.documents import ranking, reading, words
from services.distiller.quality import claims, support, verdict
from shared import grading
from shared.flight import datasets

LEAST_PROBABILITY = 0.05
"""Of the sentences that hold the answer, together."""
DOUBTFUL_PROBABILITY, _DOUBTFUL_SHARE, _LEAST_DOUBTFUL = 0.25, 0.6, 2
"""Where most facts of a passage are as doubtful as that, they were mixed up: all those go."""
_LEAST_SENTENCES = 3
_LEAST_SHARE, _NEAR_BEST = 0.5, 0.75
"""An answer in words of its own stands in the sentences that share most of its words."""
_HOW_MANY = "how many"
_COUNTING = re.compile(rf"{_HOW_MANY}\b|(?:in )?(?:what|which) year\b")
_UNNUMBERED = re.compile(
    r"\b(?:no|none|zero|nil|nobody|several|many|few|countless|unlimited|infinite(?:ly)?|"
    r"dozens|hundreds|thousands|millions|billions)\b|\u221e",
    re.I,
)
"""Answers to how many without a number."""


async def placed(pairs: Sequence[datasets.QAPair], embed: vectors.AsyncEmbed) -> verdict.Sifted:
    """Rejects facts whose answer stands elsewhere in their passage; others pass.

    Args:
        pairs: any; those without a passage pass.
        embed: the embedder of which the ranker's similarities come.
    """
    wrong: dict[int, tuple[verdict.Reason, str]] = {}
    by_passage: dict[str, list[int]] = {}
    for at, pair in enumerate(pairs):
        if pair.kind is datasets.Kind.FACT and pair.passage:
            by_passage.setdefault(pair.passage, []).append(at)
    for passage, members in by_passage.items():
        document = _document(passage)
        if len(document.passages) < _LEAST_SENTENCES:
            continue
        indexed = await ranking.IndexedDocument.index(document, embed)
        questions = [pairs[at].question for at in members]
        plain = [ranking.unnamed(question, document.title) for question in questions]
        rows_QD = await embed([*questions, *plain])
        answered = [
            _answered(pairs[at], indexed.rank(pairs[at].question, vector, vector_plain))
            for at, vector, vector_plain in zip(
                members, rows_QD, rows_QD[len(questions) :], strict=False
            )
        ]
        doubtful = sum(one.probability < DOUBTFUL_PROBABILITY for one in answered)
        mixed_up = doubtful >= _LEAST_DOUBTFUL and doubtful >= _DOUBTFUL_SHARE * len(answered)
        least = DOUBTFUL_PROBABILITY if mixed_up else LEAST_PROBABILITY
        for at, one in zip(members, answered, strict=True):
            if why := _counts_nothing(pairs[at]):
                wrong[at] = (verdict.Reason.MISPLACED, why)
            elif one.probability < least:
                why = f"its passage answers that elsewhere: {one.elsewhere[:160]}"
                wrong[at] = (verdict.Reason.MISPLACED, why)
    return verdict.sift((pair, wrong.get(at)) for at, pair in enumerate(pairs))


@dataclasses.dataclass(frozen=True)
class _Answered:
    """What the ranker thinks of an answer."""

    probability: float
    """That the question is answered where the answer stands; 1 where it stands nowhere."""
    elsewhere: str
    """The sentence that it would rather have answer the question."""


def _counts_nothing(pair: datasets.QAPair) -> str:
    """Why a question after a number is not answered; empty where it is."""
    asked = _COUNTING.match(pair.question.casefold())
    if asked is None or words.offers(pair.answer, words.Wanted.NUMBER, set()):
        return ""
    if asked[0] == _HOW_MANY and _UNNUMBERED.search(pair.answer):
        return ""
    return f"it asks {asked[0]}, and the answer names no number"


def _answered(pair: datasets.QAPair, ranked: Sequence[ranking.Ranked]) -> _Answered:
    holds = _holding(pair.answer, [one.passage.text for one in ranked])
    sure = sum(one.probability for one, held in zip(ranked, holds, strict=True) if held)
    return _Answered(sure if any(holds) else 1.0, ranked[0].passage.text)


def _holding(answer: str, sentences: Sequence[str]) -> list[bool]:
    """Which sentences an answer stands in, or quotes whole; else those with most of its words."""
    verbatim = [
        grading.is_right(text, answer) or wording.key(text) in wording.key(answer)
        for text in sentences
    ]
    if any(verbatim):
        return verbatim
    said = claims.stems(answer)
    shares = [len(said & claims.stems(text)) / (len(said) or 1) for text in sentences]
    least = max(_LEAST_SHARE, _NEAR_BEST * max(shares))
    return [share >= least for share in shares]


def _document(passage: str) -> reading.Document:
    """A passage as the ranker takes it; the first of several lines is its title."""
    title, _, body = passage.partition("\n")
    told = support.sentences(body or title)
    heading = title if body else ""
    return reading.Document(
        "",
        heading,
        tuple(
            reading.Passage(text, (heading,) if heading else (), before, 1)
            for text, before in zip(told, ["", *told], strict=False)
        ),
    )
