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
_NAMELESS_QUESTIONS = 100
_CAPITAL_SHARE = 0.7
_SMALL_NAME_SHARE = 0.4
_KNOWN_QUESTIONS_EACH = 1
_SMALL_TALK = (
    "Hello!", "Good evening, how do you do?", "Thank you very much.", "See you tomorrow.",
    "Who made you?", "What are you able to do?", "Tell me something funny.", "I don't understand.",
    "Could you help me with something?", "Please repeat that.", "What day is it today?",
    "Write a short letter to my aunt.", "Correct the grammar of this sentence.", "Yes, please.",
    "Give me some advice on learning to swim.", "How do I boil an egg?", "What is 17 plus 25?",
    "Translate good night into Spanish.", "Which film should I watch tonight?", "Why?",
    "Hm.", "And?", "asdf", "test", "1234",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class PracticeCard:
    """A made-up card with questions that belong to it and are not among its examples."""

    examples: tuple[str, ...]
    statements: tuple[str, ...]
    """What the card says."""
    held_out: tuple[str, ...]
    nameless: tuple[str, ...]
    """Questions that belong to it and do not name the thing."""
    namesakes: tuple[str, ...]
    """The same questions about things of that kind whose names are ordinary words."""
    untold: tuple[str, ...]
    """Questions about the same thing, named or not, that the card has no answer to."""


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
    nameless = [
        _first_upper(rng.choice(family.questions).format(x=_unnamed(inventor.noun(), rng)))
        for family in rng.choices(_about_one_thing(), k=_NAMELESS_QUESTIONS)
    ]
    return tuple(dict.fromkeys([*_SMALL_TALK, *known, *invented, *nameless]))


def practice(vocabulary: Sequence[str]) -> tuple[PracticeCard, ...]:
    """Cards in pairs that ask the same about two things of the same kind.

    The twin's questions are the hardest negatives there are: same kind of thing, same relation,
    another name.
    """
    rng = random.Random(_SEED + 1)
    inventor = _inventor(vocabulary, rng)
    usable = _about_one_thing()
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
        # Substances, illnesses and many programs are written without a capital.
        small = rng.random() < _SMALL_NAME_SHARE
        for _ in range(2):
            name = inventor.name() if rng.random() < 0.6 else f"{inventor.name()} {inventor.name()}"
            name = name.lower() if small else name
            things = [shape.format(n=name, k=noun, o=other) for shape in shapes]
            found.append(_card(asked, untold, things, noun, inventor, rng))
    return tuple(found)


def _card(
    asked: Sequence[families.Family],
    untold: Sequence[families.Family],
    things: Sequence[str],
    noun: str,
    inventor: invention.Inventor,
    rng: random.Random,
) -> PracticeCard:
    """The first way to call the thing is the card's; askers use the others too.

    Its statements also name a place that the examples do not, and some askers say that place
    instead.
    """
    place = inventor.name()
    elsewhere = f"the {noun} {rng.choice(('in', 'at', 'of', 'near'))} {place}"
    examples, statements, held_out, nameless, namesakes = [], [], [], [], []
    for family in asked:
        wordings = rng.sample(family.questions, len(family.questions))
        told = wordings[: rng.randint(3, len(wordings) - 3)]
        examples += [_first_upper(w.format(x=things[0])) for w in told]
        held_out += [_first_upper(w.format(x=rng.choice(things))) for w in wordings[-2:]]
        statement = rng.choice(family.statements)
        called = rng.choice((things[0], things[0], elsewhere, "it"))
        said = statement.format(x=called, v=inventor.value(family.value))
        statements.append(_first_upper(f"{said}."))
        if place in said:
            held_out.append(_first_upper(wordings[-3].format(x=elsewhere)))
        nameless.append(_first_upper(wordings[-3].format(x=_unnamed(noun, rng))))
        name = f"{inventor.word()} {inventor.word()} {noun}"
        name = name.title() if rng.random() < _CAPITAL_SHARE else name
        namesakes.append(_first_upper(rng.choice(wordings).format(x=f"the {name}")))
    others = [
        _first_upper(rng.choice(f.questions).format(x=x))
        for f, x in zip(untold, (things[0], things[0], things[0], _unnamed(noun, rng)), strict=True)
    ]
    return PracticeCard(
        tuple(examples),
        tuple(statements),
        tuple(held_out),
        tuple(nameless),
        tuple(namesakes),
        tuple(others),
    )


def _about_one_thing() -> list[families.Family]:
    return [family for family in families.load() if not family.takes_second]


def _unnamed(noun: str, rng: random.Random) -> str:
    return rng.choice(("it", f"the {noun}", f"this {noun}"))


def _inventor(vocabulary: Sequence[str], rng: random.Random) -> invention.Inventor:
    folder = pathlib.Path(next(iter(recipe.__path__)))
    nouns = (folder / "nouns.txt").read_text(encoding="utf-8").split()
    return invention.Inventor(invention.Words(vocabulary, nouns), rng)


def _first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]
