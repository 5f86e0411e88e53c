"""Other wordings of a question, without a language model: question families and plain grammar.

Genuinely different wordings are what lets a card answer questions that it was never trained on.
Two sources: families of questions written for this project (a question is matched to the family
whose meaning is nearest, by sentence embedding), and transformations that hold for any English
question.
"""

from __future__ import annotations

import asyncio
import pathlib
import re
from collections.abc import Sequence

from services.distiller import vectors
from shared.models.embedded.recipe import families

_STAND_IN = "it"
_LEAST_FAMILY_SIMILARITY = 0.72
_LEAST_WORDING_SIMILARITY = 0.6
_QUESTION_WORDS = frozenset(
    "what which who whom whose when where why how is are was were do does did can could in on at "
    "by from to for of if name tell give i the a an".split()
)


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
        thing = thing_asked_about(question)
        found = [*await self._from_families(question, thing), *by_grammar(question, thing)]
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

    async def _from_families(self, question: str, thing: str) -> list[str]:
        if not thing:
            return []
        masked = question.replace(thing, _STAND_IN)
        similarity = await self._template_vectors() @ (await self._embed([masked]))[0]
        best: dict[str, float] = {}
        family_of = {}
        for (family, _), score in zip(self._templates, similarity, strict=True):
            best[family.name] = max(best.get(family.name, -1.0), float(score))
            family_of[family.name] = family
        name = max(best, key=lambda key: best[key])
        if best[name] < _LEAST_FAMILY_SIMILARITY:
            return []
        return [_first_upper(w.format(x=thing)) for w in family_of[name].questions]


async def create(
    embed: vectors.AsyncEmbed,
    known: Sequence[families.Family] | None = None,
    cache_dir: pathlib.Path | None = None,
) -> Rewording:
    """A `Rewording` whose families are embedded already; the arguments are those of the class."""
    rewording = Rewording(embed, known, cache_dir)
    await rewording._template_vectors()
    return rewording


def thing_asked_about(question: str) -> str:
    """The noun phrase around the question's proper name; empty where there is none."""
    words = question.rstrip("?.! ").split()
    names = [
        at for at, word in enumerate(words)
        if re.match(r"[`'\"]?[A-Z][\w'-]*|.*\d", word)
        and (at > 0 or word.casefold() not in _QUESTION_WORDS)
    ]  # fmt: skip
    if not names:
        return ""
    first = last = names[0]
    for at in names[1:]:
        if at == last + 1 or (at == last + 2 and words[last + 1] in ("of", "the", "de", "van")):
            last = at
    if first > 0 and words[first - 1].casefold() in ("the", "a", "an"):
        first -= 1
    return " ".join(words[first : last + 1]).rstrip("',;:")


def by_grammar(question: str, thing: str) -> list[str]:
    """Wordings that hold for any question: asked otherwise, as a request, as key words."""
    body = question.rstrip("?.! ")
    lower = body[:1].lower() + body[1:]
    found = [f"Can you tell me {_as_clause(lower)}?", f"I want to know {_as_clause(lower)}."]
    if match := re.fullmatch(r"what (?:is|are|was|were) (the .+?) (?:of|in|for) (.+)", lower):
        part, whole = match.groups()
        found += [
            f"{_first_upper(whole)}: what is {part}?",
            f"Tell me {part} of {whole}.",
            f"{_first_upper(whole)} has which {part.removeprefix('the ')}?",
            f"Which {part.removeprefix('the ')} does {whole} have?",
        ]
    if match := re.fullmatch(r"who (.+)", lower):
        found += [
            f"Name the person who {match[1]}.", f"Which person {match[1]}?",
            f"Whose name belongs here: ... {match[1]}?",
        ]  # fmt: skip
    if match := re.fullmatch(r"(?:when|in (?:which|what) year) (did|was|were|is|does) (.+)", lower):
        found += [
            f"In what year {match[1]} {match[2]}?", f"What is the date when {match[2]}?",
            f"At what time {match[1]} {match[2]}?", f"Tell me when {match[2]}.",
        ]  # fmt: skip
    if match := re.fullmatch(r"where (did|was|were|is|are|does|do|can) (.+)", lower):
        found += [
            f"In which place {match[1]} {match[2]}?", f"At what location {match[1]} {match[2]}?",
            f"Name the place where {match[2]}.",
        ]  # fmt: skip
    if match := re.fullmatch(r"how many (.+)", lower):
        found += [f"What is the number of {match[1]}?", f"Give the count of {match[1]}."]
    if match := re.fullmatch(r"(?:which|what) (\w+) (.+)", lower):
        if match[1] not in ("is", "are", "was", "were", "do", "does", "did", "can"):
            found += [f"Name the {match[1]} that {match[2]}.", f"{_first_upper(match[2])}: which {match[1]}?"]
    if thing and thing in body:
        rest = body.replace(thing, "it")
        found.append(f"About {thing}: {rest[:1].lower()}{rest[1:]}?")
    found.append(" ".join(w for w in body.split() if w.casefold() not in _QUESTION_WORDS))
    return [_first_upper(wording) for wording in found]


def _as_clause(question: str) -> str:
    """`how tall is the tower` as `how tall the tower is`, where the verb is a form of to be."""
    match = re.fullmatch(
        r"((?:how|what|which|who|whose|when|where|why)(?: \w+)?) (is|was|are|were) (.+)", question
    )
    if match and not match[1].startswith(("who", "what ", "which ")):
        return f"{match[1]} {match[3]} {match[2]}"
    return question


def _first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]
