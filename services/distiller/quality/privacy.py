"""Keeps personal data and secrets out of what is trained, kept and sent on."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable

from services.distiller.documents import words
from services.distiller.quality import verdict
from shared import scrubbing
from shared.flight import datasets

_PLACEHOLDER = re.compile(r"<[^<>]+>")
_LEAST_LEFT = 3
"""New content words of an answer that still says something without what was personal in it."""


def public(pairs: Iterable[datasets.QAPair]) -> verdict.Sifted:
    """Scrubs pairs: placeholders stand for what looks personal or secret, see `shared.scrubbing`.

    Wordings that hold any are dropped; a pair is rejected where its question does, or where
    nothing is left of its answer. What is kept of such a pair is scrubbed, too, and so are the
    passages, which travel with the dataset.
    """
    return verdict.sift(map(_checked, pairs))


@functools.lru_cache(maxsize=64)
def _scrubbed(passage: str) -> str:
    # The pairs of one passage follow one another.
    return scrubbing.scrub(passage)


def _checked(
    pair: datasets.QAPair,
) -> tuple[datasets.QAPair, tuple[verdict.Reason, str] | None]:
    clean = dataclasses.replace(
        pair,
        question=scrubbing.scrub(pair.question),
        answer=scrubbing.scrub(pair.answer),
        paraphrases=tuple(text for text in pair.paraphrases if scrubbing.scrub(text) == text),
        passage=_scrubbed(pair.passage),
    )
    if clean.question != pair.question:
        return clean, (verdict.Reason.PRIVATE, "its question holds personal data or a secret")
    if clean.answer != pair.answer:
        left = words.stems(_PLACEHOLDER.sub(" ", clean.answer)) - words.stems(pair.question)
        if len(left) < _LEAST_LEFT:
            return clean, (verdict.Reason.PRIVATE, "its answer is personal data or a secret")
    return clean, None
