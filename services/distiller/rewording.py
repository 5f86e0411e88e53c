"""Other wordings of a question, without a language model: families, grammar and synonyms.

Genuinely different wordings are what lets a card answer questions that it was never trained on.
Three sources: families of questions written for this project (those whose meaning is nearest, by
sentence embedding), transformations that hold for any English question, and a lexicon of synonyms.
The embedder has the last word on what kept the meaning, and the chosen ones differ from one
another as much as they can.
"""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from services.distiller import grammar, synonyms, vectors
from services.distiller.documents import words
from shared.models.embedded.recipe import families

_STAND_IN = "it"
_SHOWN_WORDINGS = slice(0, 12, 4)
"""Wordings by which a family is found: embedding all of them would take half a minute."""
_LEAST_SIMILARITIES = (0.72, 0.80, 0.80)
"""Of the nearest family to the question, both with `it` for the thing, of the second, the third."""
_LEAST_WORDING_SIMILARITY = 0.6
"""Of a wording to the question; below this it may well mean something else."""
_SYNONYMOUS = 8
_NOVELTY_WEIGHT = 0.45
"""How much being unlike the wordings chosen before counts against being like the question."""


class Rewording:
    """Rewords questions, one after the other or many at once."""

    def __init__(
        self,
        embed: vectors.AsyncEmbed,
        known: Sequence[families.Family] | None = None,
        cache_dir: pathlib.Path | None = None,
    ) -> None:
        """Prepares; the families are embedded once, at the first question.

        Args:
            embed: the project's embedder, usually the router's `Embed`.
            known: the families; by default those shipped.
            cache_dir: where the families' vectors are kept from one start to the next.
        """
        self._embed = embed
        self._cache_dir = cache_dir
        self._families = [
            f for f in (families.load() if known is None else known) if not f.takes_second
        ]
        self._shown = [
            (at, wording.format(x=_STAND_IN))
            for at, family in enumerate(self._families)
            for wording in family.questions[_SHOWN_WORDINGS]
        ]
        self._vectors: vectors.Vectors | None = None
        self._lock = asyncio.Lock()

    async def prepare(self) -> None:
        """Embeds the families, which takes a quarter of a minute once for each state folder."""
        await self._shown_vectors()

    async def reword(self, question: str, most: int, others: Sequence[str] = ()) -> list[str]:
        """Other wordings of a question, which is not among them.

        Args:
            question: what to say otherwise.
            most: how many, the best first.
            others: questions with other answers; no wording is nearer to one of them.
        """
        things = grammar.things_asked_about(question)
        thing = things[0] if things else ""
        found = [
            *await self._from_families(question, things),
            *grammar.wordings(question, thing),
            *synonyms.variants(question, thing, _SYNONYMOUS),
        ]
        unique = [
            wording for wording in dict.fromkeys(found) if wording.casefold() != question.casefold()
        ]
        if not unique:
            return []
        vectors_WD = await self._embed([question, *unique, *others])
        own_D, wordings_WD = vectors_WD[0], vectors_WD[1 : 1 + len(unique)]
        likeness_W = wordings_WD @ own_D
        wanted = words.wanted(question)
        fits_W = np.array([not words.clash(wanted, words.wanted(text)) for text in unique])
        fits_W &= likeness_W >= _LEAST_WORDING_SIMILARITY
        if others:
            fits_W &= likeness_W > (wordings_WD @ vectors_WD[1 + len(unique) :].T).max(axis=1)
        chosen = _diverse(likeness_W, wordings_WD, np.flatnonzero(fits_W).tolist(), most)
        return [unique[at] for at in chosen]

    async def _from_families(self, question: str, things: Sequence[str]) -> list[str]:
        """Wordings of the nearest families, whatever part of the question is its thing."""
        if not things:
            return []
        masked = [question.replace(thing, _STAND_IN, 1) for thing in things]
        similarity_TS = (await self._embed(masked)) @ (await self._shown_vectors()).T
        best: dict[int, str] = {}
        for column in np.argsort(-similarity_TS.max(axis=0), kind="stable"):
            family = self._shown[column][0]
            if family in best:
                continue
            if similarity_TS[:, column].max() < _LEAST_SIMILARITIES[len(best)]:
                break
            best[family] = things[int(similarity_TS[:, column].argmax())]
            if len(best) == len(_LEAST_SIMILARITIES):
                break
        return [
            wording
            for at, thing in best.items()
            for wording in _filled(self._families[at].questions, thing)
        ]

    async def _shown_vectors(self) -> vectors.Vectors:
        # The lock keeps questions that arrive together from embedding all families twice.
        async with self._lock:
            if self._vectors is None:
                texts = [text for _, text in self._shown]
                self._vectors = (
                    await self._embed(texts)
                    if self._cache_dir is None
                    else await vectors.cached(self._embed, texts, self._cache_dir)
                )
        return self._vectors


def _filled(wordings: Iterable[str], thing: str) -> list[str]:
    """A family's wordings about a thing; they take turns in what they call it."""
    names = [thing, *grammar.other_names(thing)]
    filled = [text.format(x=names[at % len(names)]) for at, text in enumerate(wordings)]
    return [text[:1].upper() + text[1:] for text in filled]


def _diverse(
    likeness_W: vectors.Vectors,
    wordings_WD: vectors.Vectors,
    usable: Sequence[int],
    most: int,
) -> list[int]:
    """Picks by maximal marginal relevance (Carbonell and Goldstein 1998)."""
    chosen: list[int] = []
    nearest_W = np.zeros_like(likeness_W)
    left = list(usable)
    while left and len(chosen) < most:
        scores = likeness_W[left] - _NOVELTY_WEIGHT / (1 - _NOVELTY_WEIGHT) * nearest_W[left]
        at = left.pop(int(scores.argmax()))
        chosen.append(at)
        nearest_W = np.maximum(nearest_W, wordings_WD @ wordings_WD[at])
    return chosen
