"""Whether an answer stands where its passage speaks of what was asked.

Answers that were mixed up between the questions of one passage all stand in that passage. The
ranker of `documents`, which was fitted on questions about Wikipedia passages, says which sentence
answers a question; a fact whose answer stands only in sentences that it thinks impossible is
misplaced, and so is one that names no number where one is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.distiller import vectors, wording
from services.distiller.documents import ranking, reading, words
from services.distiller.quality import claims, support, verdict
from shared import grading
from shared.flight import datasets

LEAST_PROBABILITY = 0.05
"""Of the sentences that hold the answer, together."""
_LEAST_SENTENCES = 3
_LEAST_SHARE, _NEAR_BEST = 0.5, 0.75
"""An answer in words of its own stands in the sentences that share most of its words."""
_COUNTS = (words.Wanted.NUMBER, words.Wanted.YEAR)


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
        for at, vector, vector_plain in zip(
            members, rows_QD, rows_QD[len(questions) :], strict=False
        ):
            ranked = indexed.rank(pairs[at].question, vector, vector_plain)
            if why := _misplaced(pairs[at], ranked):
                wrong[at] = (verdict.Reason.MISPLACED, why)
    return verdict.sift((pair, wrong.get(at)) for at, pair in enumerate(pairs))


def _misplaced(pair: datasets.QAPair, ranked: Sequence[ranking.Ranked]) -> str:
    kind = words.wanted(pair.question)
    if kind in _COUNTS and not words.offers(pair.answer, kind, set()):
        return f"it asks for a {kind.value}, which the answer does not name"
    holds = _holding(pair.answer, [one.passage.text for one in ranked])
    sure = sum(one.probability for one, held in zip(ranked, holds, strict=True) if held)
    if not any(holds) or sure >= LEAST_PROBABILITY:
        return ""
    return f"its passage answers that elsewhere: {ranked[0].passage.text[:160]}"


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
