"""Other wordings of a question, without a language model: question families and plain grammar.

Genuinely different wordings are what lets a card answer questions that it was never trained on.
Two sources: families of questions written for this project (a question is matched to the family
whose meaning is nearest, by sentence embedding), and transformations that hold for any English
question.
"""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Sequence

import numpy as np

from services.distiller import grammar, vectors
from shared.models.embedded.recipe import families

_STAND_IN = "it"
_LEAST_FAMILY_SIMILARITY = 0.72
_LEAST_WORDING_SIMILARITY = 0.6


class Rewording:
    """Rewords questions with the families nearest to them."""

    def __init__(
        self,
        embed: vectors.AsyncEmbed,
        known: Sequence[families.Family] | None = None,
        cache_dir: pathlib.Path | None = None,
    ) -> None:
        """Prepares; the families' wordings are embedded once, at the first question.

        Args:
            embed: the project's embedder, usually the router's `Embed`.
            known: the families; by default those shipped.
            cache_dir: where the wordings' vectors are kept from one start to the next.
        """
        self._embed = embed
        self._cache_dir = cache_dir
        usable = [f for f in (families.load() if known is None else known) if not f.takes_second]
        self._templates = [(family, wording) for family in usable for wording in family.questions]
        self._vectors: vectors.Vectors | None = None
        self._lock = asyncio.Lock()

    async def reword(self, question: str, most: int) -> list[str]:
        """Up to `most` other wordings, the surest first; the question itself is not among them."""
        things = grammar.things_asked_about(question)
        found = [
            *await self._from_families(question, things),
            *grammar.wordings(question, things[0] if things else ""),
        ]
        unique = list(dict.fromkeys(found))
        if not unique:
            return []
        vectors_WD = await self._embed([question, *unique])
        similarity = vectors_WD[1:] @ vectors_WD[0]
        kept = [
            wording
            for wording, score in zip(unique, similarity, strict=True)
            if score >= _LEAST_WORDING_SIMILARITY and wording.casefold() != question.casefold()
        ]
        return kept[:most]

    async def _template_vectors(self) -> vectors.Vectors:
        # The lock keeps questions that arrive together from embedding all wordings twice.
        async with self._lock:
            if self._vectors is None:
                texts = [wording.format(x=_STAND_IN) for _, wording in self._templates]
                self._vectors = (
                    await self._embed(texts)
                    if self._cache_dir is None
                    else await vectors.cached(self._embed, texts, self._cache_dir)
                )
        return self._vectors

    async def _from_families(self, question: str, things: Sequence[str]) -> list[str]:
        """Wordings of the family that is nearest, whatever part of the question is its thing."""
        if not things:
            return []
        masked = [question.replace(thing, _STAND_IN, 1) for thing in things]
        similarity_ST = (await self._template_vectors() @ (await self._embed(masked)).T).T
        thing_at, template_at = np.unravel_index(similarity_ST.argmax(), similarity_ST.shape)
        if similarity_ST[thing_at, template_at] < _LEAST_FAMILY_SIMILARITY:
            return []
        family, thing = self._templates[int(template_at)][0], things[int(thing_at)]
        # Every other wording calls the thing by another of its names.
        names = [thing, *grammar.other_names(thing)]
        return [
            _first_upper(wording.format(x=names[at % len(names)]))
            for at, wording in enumerate(family.questions)
        ]


async def create(
    embed: vectors.AsyncEmbed,
    known: Sequence[families.Family] | None = None,
    cache_dir: pathlib.Path | None = None,
) -> Rewording:
    """A `Rewording` whose families are embedded already; the arguments are those of the class."""
    rewording = Rewording(embed, known, cache_dir)
    await rewording._template_vectors()
    return rewording


def _first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]
