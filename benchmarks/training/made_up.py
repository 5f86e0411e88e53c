"""Made-up sets of facts as a teacher would give them, good ones and ones bad in known ways.

Everything follows from a seed. Knows nothing about distillers, trainers and gates.
"""

from __future__ import annotations

import dataclasses
import enum
import random
from collections.abc import Callable, Sequence

from services.distiller import wording
from shared.flight import datasets
from shared.models.embedded.recipe import conversations, families, invention

FACTS = 10
_WORDINGS = 8
"""That the teacher gives of a question, the question not counted."""
_TRIGGERS = 2
"""Questions of a set that users asked."""
_TEACHER = "made-up"


class Flaw(enum.StrEnum):
    """What is wrong with a set, or with the card made from it."""

    NONE = "good"
    SHUFFLED = "shuffled answers"
    NO_OP = "no-op weights"
    CONTRADICTORY = "pairs contradict each other"
    AGAINST_PASSAGE = "pairs contradict the passage"
    HIJACKER = "takes other questions"


BAD = tuple(flaw for flaw in Flaw if flaw is not Flaw.NONE)


@dataclasses.dataclass(frozen=True)
class FactSet:
    """What one task is about."""

    name: str
    flaw: Flaw
    variant: str
    """In which way it is bad; empty for a good one."""
    title: str
    """The thing that all facts are about."""
    queries: tuple[str, ...]
    """What users asked."""
    pairs: tuple[datasets.QAPair, ...]
    """What the teacher says."""
    again: tuple[datasets.QAPair, ...]
    """What it says when it is asked once more: answers that slipped in one reply are right in the
    next, and what it has wrong stays wrong."""
    unseen: tuple[tuple[str, str], ...]
    """Questions in wordings that no teacher gave, with the right answers."""


def good(seed: int) -> FactSet:
    """Ten facts about one made-up thing."""
    rng = random.Random(seed)
    inventor = _inventor(rng)
    title = f"the {inventor.name()} {inventor.noun()}"
    chosen = _families(rng)
    pairs, unseen = [], []
    for family in chosen:
        answer = inventor.value(family.value)
        texts = [_capital(text.format(x=title)) for text in family.questions]
        pairs.append(
            datasets.QAPair(
                question=texts[0],
                answer=answer,
                paraphrases=tuple(texts[1 : 1 + _WORDINGS]),
                source=_TEACHER,
                teacher=_TEACHER,
                score=1.0,
                passage=_capital(family.statements[0].format(x=title, v=answer)) + ".",
            )
        )
        unseen.append((texts[-1], answer))
    queries = tuple(pair.question for pair in pairs[:_TRIGGERS])
    told = tuple(pairs)
    return FactSet(f"good-{seed}", Flaw.NONE, "", title, queries, told, told, tuple(unseen))


def bad(flaw: Flaw, number: int, seed: int, victims: Sequence[FactSet]) -> FactSet:
    """A set that is bad in the given way.

    Args:
        flaw: what is wrong with it.
        number: of the bad set; the ways of one flaw take turns.
        seed: of the good set that it is made from.
        victims: good sets whose cards are installed.
    """
    whole, rng = good(seed), random.Random(seed + 1)
    made: dict[Flaw, Callable[[], tuple[tuple[datasets.QAPair, ...], str]]] = {
        Flaw.NONE: lambda: (whole.pairs, ""),
        Flaw.NO_OP: lambda: (whole.pairs, ""),
        Flaw.SHUFFLED: lambda: _shuffled(whole.pairs, number),
        Flaw.CONTRADICTORY: lambda: _contradictory(whole.pairs, number, rng),
        Flaw.AGAINST_PASSAGE: lambda: _against_passage(whole.pairs, rng),
        Flaw.HIJACKER: lambda: _hijacking(whole.pairs, number, rng, victims),
    }
    pairs, variant = made[flaw]()
    name = wording.key(flaw).replace(" ", "-")
    queries = tuple(pair.question for pair in pairs[:_TRIGGERS])
    again = whole.pairs if flaw is Flaw.SHUFFLED else pairs
    return FactSet(
        f"{name}-{seed}", flaw, variant, whole.title, queries, pairs, again, whole.unseen
    )


def _shuffled(
    pairs: Sequence[datasets.QAPair], number: int
) -> tuple[tuple[datasets.QAPair, ...], str]:
    """Every answer stands at the next fact; half of the sets come without their passages."""
    known = number % 2 == 0
    moved = [*pairs[1:], pairs[0]]
    made = tuple(
        dataclasses.replace(pair, answer=other.answer, passage=pair.passage if known else "")
        for pair, other in zip(pairs, moved, strict=True)
    )
    return made, "passages known" if known else "no passages"


def _contradictory(
    pairs: Sequence[datasets.QAPair], number: int, rng: random.Random
) -> tuple[tuple[datasets.QAPair, ...], str]:
    """Each fact twice with two answers, in the same wordings or in different ones."""
    same, made = number % 2 == 0, []
    for pair in pairs:
        texts = (pair.question, *pair.paraphrases)
        first, second = (texts, texts) if same else (texts[::2], texts[1::2])
        for answer, own in ((pair.answer, first), (_other_answer(pair, pairs, rng), second)):
            made.append(
                dataclasses.replace(
                    pair, question=own[0], paraphrases=own[1:], answer=answer, passage=""
                )
            )
    return tuple(made), "in the same wordings" if same else "in different wordings"


def _against_passage(
    pairs: Sequence[datasets.QAPair], rng: random.Random
) -> tuple[tuple[datasets.QAPair, ...], str]:
    """The passage says one thing and the answer another of its kind."""
    made = [dataclasses.replace(pair, answer=_other_answer(pair, pairs, rng)) for pair in pairs]
    return tuple(made), "all of them"


def _hijacking(
    pairs: Sequence[datasets.QAPair],
    number: int,
    rng: random.Random,
    victims: Sequence[FactSet],
) -> tuple[tuple[datasets.QAPair, ...], str]:
    """Wordings that belong to others: known questions, those of other cards, or of anything."""
    ways = ("known questions", "questions of other cards", "questions about anything")
    way = ways[number % len(ways)]
    if way == ways[0]:
        taken = [text for fact in conversations.known_facts() for text in fact.questions]
    elif way == ways[1]:
        taken = [
            text
            for victim in victims
            for pair in victim.pairs
            for text in (pair.question, *pair.paraphrases)
        ]
    else:
        taken = [_about_anything(rng) for _ in range(len(pairs) * _WORDINGS)]
    texts = rng.sample(taken, min(len(taken), len(pairs) * _WORDINGS))
    made = tuple(
        dataclasses.replace(pair, paraphrases=tuple(texts[at :: len(pairs)]), passage="")
        for at, pair in enumerate(pairs)
    )
    return made, way


def _about_anything(rng: random.Random) -> str:
    """A question about a thing of its own."""
    family = rng.choice([one for one in families.load() if not one.takes_second])
    return _capital(rng.choice(family.questions).format(x=_inventor(rng).entity()))


def _inventor(rng: random.Random) -> invention.Inventor:
    nouns = families.nouns()
    return invention.Inventor(invention.Words(vocabulary=nouns, nouns=nouns), rng)


def _other_answer(
    pair: datasets.QAPair, pairs: Sequence[datasets.QAPair], rng: random.Random
) -> str:
    """An answer that is not this fact's: of its kind where its numbers can be changed."""
    digits = [at for at, sign in enumerate(pair.answer) if sign.isdigit()]
    if digits:
        at = rng.choice(digits)
        sign = str((int(pair.answer[at]) + rng.randint(1, 8)) % 9 + 1)
        sign = sign if sign != pair.answer[at] else str(int(sign) % 9 + 1)
        return pair.answer[:at] + sign + pair.answer[at + 1 :]
    return rng.choice([other.answer for other in pairs if other.answer != pair.answer])


def _families(rng: random.Random) -> list[families.Family]:
    """Ten questions, of different kinds as far as there are."""
    usable = [one for one in families.load() if not one.takes_second]
    usable = [one for one in usable if len(one.questions) >= _WORDINGS + 2]
    found: dict[str, families.Family] = {}
    while len(found) < FACTS:
        family = rng.choice(usable)
        found.setdefault(family.value, family)
    return list(found.values())


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
