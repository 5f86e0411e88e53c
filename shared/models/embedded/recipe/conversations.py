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

from shared.models.embedded.recipe import compositions, families, invention

KNOWN_FACTS = pathlib.Path(__file__).parent / "known_facts.jsonl"
UNKNOWN_ANSWER = "I do not know."
HELD_OUT_WORDINGS = 2
"""The last wordings of each known fact are never trained on; they measure the base."""
_FAMILIES_A_THING, _COMPOSED_A_THING = 5, 3
"""Questions about one unknown thing, each in two wordings."""
_HASTY_SHARE = 0.06
"""Of the questions are written in lower case and without a mark, as people type them."""
_BARE_VALUE_SHARE = 0.5
"""Of the invented facts are answered by the value alone, the others by a sentence."""


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
        vocabulary: Sequence[str],
        rng: random.Random,
        question_families: Sequence[families.Family],
        invented_facts: int,
    ) -> None:
        """Fixes the invented facts that the base will remember; the rest is drawn later.

        Args:
            vocabulary: whole words, the most frequent first.
            rng: where all chance comes from.
            question_families: what is asked about invented things.
            invented_facts: how many of them.
        """
        self._rng = rng
        words = invention.Words([w for w in vocabulary if len(w) > 2], families.nouns())
        self._inventor = invention.Inventor(words, rng)
        self._lexicon = compositions.Lexicon(vocabulary)
        self._families = list(question_families)
        self._known = known_facts()
        self._invented = [self._invent() for _ in range(invented_facts)]

    def write(self, count: int, shares: dict[str, float]) -> Iterator[list[Conversation]]:
        """Yields groups that belong into one batch, about `count` conversations in all.

        Args:
            count: how many conversations.
            shares: of the kinds `known`, `invented` and `unknown`.
        """
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
                yield group

    def _known_group(self) -> list[Conversation]:
        fact = self._rng.choice(self._known)
        wordings = self._rng.sample(fact.trained, 2)
        meaning = f"known:{fact.questions[0]}"
        return [self._conversation(q, fact.answer, meaning, "known") for q in wordings]

    def _invented_group(self) -> list[Conversation]:
        family, slots, answer = self._rng.choice(self._invented)
        wordings = self._rng.sample(family.questions[:-HELD_OUT_WORDINGS], 2)
        meaning = f"{family.name}:{slots['x']}"
        return [
            self._conversation(q.format(**slots), answer, meaning, "invented") for q in wordings
        ]

    def _unknown_group(self) -> list[Conversation]:
        """One thing, asked about in many ways: the relation alone tells meanings apart."""
        slots = self._slots()
        asked = [
            (f"{family.name}:{slots['x']}", wording.format(**slots))
            for family in self._rng.sample(self._families, _FAMILIES_A_THING)
            for wording in self._rng.sample(family.questions, 2)
        ]
        for _ in range(_COMPOSED_A_THING):
            wordings = compositions.compose(self._lexicon, slots["x"], 2, self._rng)
            asked += [(wordings[0], wording) for wording in wordings]
        return [
            self._conversation(question, UNKNOWN_ANSWER, meaning, "unknown")
            for meaning, question in asked
        ]

    def _conversation(self, question: str, answer: str, meaning: str, kind: str) -> Conversation:
        text = _first_upper(question)
        if self._rng.random() < _HASTY_SHARE:
            text = text.rstrip("?.").lower()
        return Conversation(text, answer, meaning, kind)

    def _invent(self) -> tuple[families.Family, dict[str, str], str]:
        """A family, what fills its slots, and the answer: the value alone or a sentence."""
        family, slots = self._rng.choice(self._families), self._slots()
        value = self._inventor.value(family.value)
        statement = self._rng.choice(family.statements).format(**slots, v=value)
        answer = value if self._rng.random() < _BARE_VALUE_SHARE else statement
        return family, slots, _first_upper(answer) + "."

    def _slots(self) -> dict[str, str]:
        return {"x": self._inventor.entity(), "y": self._inventor.entity()}


def _first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]
