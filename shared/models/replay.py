"""Questions on which a card must leave the base model as it is, with the base's own answers.

General knowledge that people ask about, and invented things that nobody can know: the same kinds
of question as a card learns, about something else. Two thirds of the known facts, in two wordings
each, and half of the invented things are replayed in training; the others only measure (`known`,
`unrelated` in the gate's table).
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import random

from shared import atomic
from shared.models import base as bases
from shared.models import greedy
from shared.models.embedded.recipe import conversations, families, invention

_MEASURED_EVERY, _REPLAYED_WORDINGS = 3, 2
_INVENTED = 180
_SEED = 20_240_501


@dataclasses.dataclass(frozen=True)
class Answered:
    """A question with the bare base model's answer."""

    question: str
    answer: str


@dataclasses.dataclass(frozen=True)
class Replay:
    """What is replayed, and what only measures."""

    trained: tuple[Answered, ...]
    """General questions and invented ones, for the loop."""
    known: tuple[Answered, ...]
    """General questions, for the gate."""
    unrelated: tuple[Answered, ...]
    """Questions about invented things, for the gate."""


def prepare(base: bases.BaseModel, folder: pathlib.Path) -> Replay:
    """Has the bare base answer all questions, once for each base model.

    Args:
        base: the model with no card active.
        folder: where the answers are kept, named by the base's fingerprint and by how its
            weights are held: in other precision it gives other answers.
    """
    facts = conversations.known_facts()
    measured = [fact.trained[0] for fact in facts[::_MEASURED_EVERY]]
    replayed = [
        question
        for at, fact in enumerate(facts)
        if at % _MEASURED_EVERY
        for question in fact.trained[:_REPLAYED_WORDINGS]
    ]
    invented = _invented()
    asked = [*measured, *replayed, *invented]
    path = folder / f"replay-{base.fingerprint[:16]}-{_numbers_of(base)}.json"
    answers = _kept(path, asked)
    if answers is None:
        answers = greedy.answers(base, asked)
        atomic.write(path, json.dumps(dict(zip(asked, answers, strict=True))).encode())
    pairs = [Answered(q, a) for q, a in zip(asked, answers, strict=True)]
    known = pairs[: len(measured)]
    general, unknown = pairs[len(measured) : -len(invented)], pairs[-len(invented) :]
    return Replay(
        trained=(*general, *unknown[::2]),
        known=tuple(known),
        unrelated=tuple(unknown[1::2]),
    )


def _numbers_of(base: bases.BaseModel) -> str:
    """Kinds and dtypes of the weights: the fingerprint is that of the model before quantising."""
    kinds = {f"{type(p.data).__name__}.{p.dtype}" for p in base.model.parameters()}
    return "-".join(sorted(kinds)).replace("torch.", "")


def _kept(path: pathlib.Path, asked: list[str]) -> list[str] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if list(found) != asked:
        return None
    return list(found.values())


def _invented() -> list[str]:
    """Questions of the families about things that do not exist, always the same ones."""
    rng = random.Random(_SEED)
    nouns = families.nouns()
    inventor = invention.Inventor(invention.Words(vocabulary=nouns, nouns=nouns), rng)
    found: dict[str, None] = {}
    while len(found) < _INVENTED:
        family = rng.choice(families.load())
        question = rng.choice(family.questions).format(x=inventor.entity(), y=inventor.entity())
        found[question[:1].upper() + question[1:]] = None
    return list(found)
