"""Templated conversations: known facts, invented facts, unknown things.

Each conversation carries a meaning: two questions of the same meaning are wordings of one another.
The recipe pulls their representations together, which is what later lets a card that was trained
on a few wordings answer the others.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import random
from collections.abc import Iterator, Sequence

from shared.models.embedded.recipe import families, invention

KNOWN_FACTS = pathlib.Path(__file__).parent / "known_facts.jsonl"
UNKNOWN_ANSWER = "I do not know."
HELD_OUT_WORDINGS = 2
"""The last wordings of each known fact are never trained on; they measure the base."""


@dataclasses.dataclass(frozen=True)
class Conversation:
    """One question with its answer."""

    question: str
    answer: str
    meaning: str
    """Equal for wordings of the same question; empty where that does not apply."""
    kind: str


@dataclasses.dataclass(frozen=True)
class KnownFact:
    """A fact of general knowledge that the base model ships with."""

    answer: str
    questions: tuple[str, ...]

    @property
    def trained(self) -> tuple[str, ...]:
        """The wordings that the recipe trains on."""
        return self.questions[:-HELD_OUT_WORDINGS]

    @property
    def held_out(self) -> tuple[str, ...]:
        """The wordings that only measure."""
        return self.questions[-HELD_OUT_WORDINGS:]


def known_facts(path: pathlib.Path = KNOWN_FACTS) -> list[KnownFact]:
    """The facts that the base model is trained to know."""
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return [KnownFact(row["answer"], tuple(row["questions"])) for row in rows]


class ConversationWriter:
    """Writes conversations of every kind from one random source."""

    def __init__(
        self,
        words: invention.Words,
        rng: random.Random,
        question_families: Sequence[families.Family],
        invented_facts: int,
    ) -> None:
        """Fixes the invented facts that the base will remember; the rest is drawn later."""
        self._rng = rng
        self._inventor = invention.Inventor(words, rng)
        self._families = list(question_families)
        self._known = known_facts()
        self._invented = [self._invent() for _ in range(invented_facts)]

    def write(self, count: int, shares: dict[str, float]) -> Iterator[Conversation]:
        """Yields about `count` conversations in the given shares of kinds."""
        makers = {
            "known": self._known_group,
            "invented": self._invented_group,
            "unknown": self._unknown_group,
        }
        total = sum(shares.values())
        for kind, share in shares.items():
            written = 0
            while written < count * share / total:
                group = makers[kind]()
                written += len(group)
                yield from group

    def _known_group(self) -> list[Conversation]:
        fact = self._rng.choice(self._known)
        wordings = self._rng.sample(fact.trained, 2)
        return [
            Conversation(q, fact.answer, f"known:{fact.questions[0]}", "known") for q in wordings
        ]

    def _invented_group(self) -> list[Conversation]:
        family, slots = self._rng.choice(self._invented)
        answer = _first_upper(slots["v"]) + "."
        wordings = self._rng.sample(family.questions[:-HELD_OUT_WORDINGS], 2)
        meaning = f"{family.name}:{slots['x']}"
        return [
            Conversation(_first_upper(q.format(**slots)), answer, meaning, "invented")
            for q in wordings
        ]

    def _unknown_group(self) -> list[Conversation]:
        """One thing asked about in several families: the relation alone tells meanings apart."""
        slots = self._slots()
        found = []
        for family in self._rng.sample(self._families, 3):
            for wording in self._rng.sample(family.questions, 2):
                meaning = f"{family.name}:{slots['x']}"
                question = _first_upper(wording.format(**slots))
                found.append(Conversation(question, UNKNOWN_ANSWER, meaning, "unknown"))
        return found

    def _invent(self) -> tuple[families.Family, dict[str, str]]:
        family, slots = self._rng.choice(self._families), self._slots()
        slots["v"] = self._inventor.value(family.value)
        return family, slots

    def _slots(self) -> dict[str, str]:
        return {"x": self._inventor.entity(), "y": self._inventor.entity()}


def _first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]
