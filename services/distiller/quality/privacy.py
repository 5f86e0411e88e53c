"""Keeps personal data and secrets out of what is trained, kept and sent on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from services.distiller.quality import verdict
from shared import scrubbing
from shared.flight import datasets

_HIDDEN = "<hidden: personal data or a secret>"


def public(pairs: Iterable[datasets.QAPair]) -> verdict.Sifted:
    """Drops pairs whose question or answer holds personal data, and wordings that do.

    A placeholder is no answer to train, so such a pair is rejected as a whole; what is kept of it
    is the placeholder alone. Passages travel with the dataset: what they hold is replaced.
    """
    return verdict.sift(map(_checked, pairs))


def _checked(
    pair: datasets.QAPair,
) -> tuple[datasets.QAPair, tuple[verdict.Reason, str] | None]:
    clean = dataclasses.replace(
        pair,
        question=scrubbing.scrub(pair.question),
        answer=scrubbing.scrub(pair.answer),
        paraphrases=tuple(text for text in pair.paraphrases if scrubbing.scrub(text) == text),
        passage=scrubbing.scrub(pair.passage),
    )
    if clean.question == pair.question and clean.answer == pair.answer:
        return clean, None
    detail = f"{clean.question} {clean.answer}"
    hidden = dataclasses.replace(clean, paraphrases=(), passage="")
    return hidden, (verdict.Reason.PRIVATE, f"{_HIDDEN} {detail}")
