"""What calibration always has: questions that belong to no card, and cards made up for practice.

Everything comes from the question families and the known facts of the embedded base's recipe and
from one seeded random source, so every router practises on the same texts. Knows nothing about
embedding or fitting.
"""

from __future__ import annotations

import dataclasses
import pathlib
import random
from collections.abc import Sequence

from shared.models.embedded import recipe
from shared.models.embedded.recipe import conversations, families, invention

_SEED = 20250
_PRACTICE_PAIRS = 18
_UNTOLD_FACTS = 4
_INVENTED_QUESTIONS = 300
_KNOWN_QUESTIONS_EACH = 1
_SMALL_TALK = (
    "Hello!", "Good evening, how do you do?", "Thank you very much.", "See you tomorrow.",
    "Who made you?", "What are you able to do?", "Tell me something funny.", "I don't understand.",
    "Could you help me with something?", "Please repeat that.", "What day is it today?",
    "Write a short letter to my aunt.", "Correct the grammar of this sentence.", "Yes, please.",
    "Give me some advice on learning to swim.", "How do I boil an egg?", "What is 17 plus 25?",
    "Translate good night into Spanish.", "Which film should I watch tonight?", "Why?",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class PracticeCard:
    """A made-up card with questions that belong to it and are not among its examples."""

    examples: tuple[str, ...]
    held_out: tuple[str, ...]
    untold: tuple[str, ...]
    """Questions about the same thing that the card has no answer to."""


def unrelated(vocabulary: Sequence[str]) -> tuple[str, ...]:
    """General questions, small talk and questions about invented things, in a fixed order."""
    rng = random.Random(_SEED)
    inventor = _inventor(vocabulary, rng)
    known = [q for fact in conversations.known_facts()
             for q in fact.questions[:_KNOWN_QUESTIONS_EACH]]  # fmt: skip
    invented = [
        _first_upper(rng.choice(family.questions).format(x=inventor.entity(), y=inventor.entity()))
        for family in rng.choices(families.load(), k=_INVENTED_QUESTIONS)
    ]
    return tuple(dict.fromkeys([*_SMALL_TALK, *known, *invented]))


def practice(vocabulary: Sequence[str]) -> tuple[PracticeCard, ...]:
    """Cards in pairs that ask the same about two things of the same kind.

    The twin's questions are the hardest negatives there are: same kind of thing, same relation,
    another name.
    """
    rng = random.Random(_SEED + 1)
    inventor = _inventor(vocabulary, rng)
    usable = [f for f in families.load() if not f.takes_second]
    found = []
    for pair in range(_PRACTICE_PAIRS):
        # From one fact alone to a page full of them.
        facts = (1, 3, 8)[pair % 3]
        drawn = rng.sample(usable, facts + _UNTOLD_FACTS)
        asked, untold = drawn[:facts], drawn[facts:]
        noun, other = inventor.noun(), inventor.noun()
        shapes = rng.choice((
            ("the {n} {k}", "the {k} of {n}", "{n}"), ("{n}", "the {n} {k}", "{n}"),
            ("{n} {k}", "{n}", "the {k} {n}"), ("the {o} of the {n} {k}", "the {o} of {n}", "{n}"),
            ("{n}'s {k}", "the {k} of {n}", "the {n} {k}"),
        ))  # fmt: skip
        for _ in range(2):
            name = inventor.name() if rng.random() < 0.6 else f"{inventor.name()} {inventor.name()}"
            things = [shape.format(n=name, k=noun, o=other) for shape in shapes]
            found.append(_card(asked, untold, things, rng))
    return tuple(found)


def _card(
    asked: Sequence[families.Family],
    untold: Sequence[families.Family],
    things: Sequence[str],
    rng: random.Random,
) -> PracticeCard:
    """The first way to call the thing is the card's; askers use the others too."""
    examples, held_out = [], []
    for family in asked:
        wordings = rng.sample(family.questions, len(family.questions))
        told = wordings[: rng.randint(3, len(wordings) - 2)]
        examples += [_first_upper(w.format(x=things[0])) for w in told]
        held_out += [_first_upper(w.format(x=rng.choice(things))) for w in wordings[-2:]]
    others = [_first_upper(rng.choice(f.questions).format(x=things[0])) for f in untold]
    return PracticeCard(tuple(examples), tuple(held_out), tuple(others))


def _inventor(vocabulary: Sequence[str], rng: random.Random) -> invention.Inventor:
    folder = pathlib.Path(next(iter(recipe.__path__)))
    nouns = (folder / "nouns.txt").read_text(encoding="utf-8").split()
    return invention.Inventor(invention.Words(vocabulary, nouns), rng)


def _first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]
