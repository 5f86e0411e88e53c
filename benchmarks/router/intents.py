"""CLINC150 as cards: one intent is one card, with some of its training questions as examples.

Takes the training and test questions, and the out-of-scope test questions to test with; those for
training and validation stay unread. Knows nothing about routers.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import random
from collections.abc import Mapping

from shared import errors

VARIABLE = "SKILLMESH_DATA"
FILE = "clinc150.json"
ALL = 100
"""Examples of an intent in the data set."""
EXAMPLES = (ALL, 10, 5)
_LEFT_OUT = 40
_DRAWS = 3
_NEAR_DRAWS = 2


@dataclasses.dataclass(frozen=True)
class Intents:
    """The parts of the data set that are used."""

    train: Mapping[str, tuple[str, ...]]
    """By intent."""
    test: tuple[tuple[str, str], ...]
    """Questions, each with its intent."""
    foreign: tuple[str, ...]
    """Questions of no intent, from the test split."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """Cards to register and questions to ask."""

    examples: int
    """Of a card."""
    near: bool
    """Whether the outsiders are near misses: questions of intents that were left out."""
    cards: Mapping[str, tuple[str, ...]]
    """Examples by card."""
    inside: tuple[tuple[str, str], ...]
    """Questions, each with its card."""
    outside: tuple[str, ...]
    """Questions of no card."""

    @property
    def asked(self) -> tuple[str, ...]:
        """All questions: those of cards first."""
        return (*(text for text, _ in self.inside), *self.outside)

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything that is embedded."""
        return (*(text for told in self.cards.values() for text in told), *self.asked)


def load(folder: str | None) -> Intents:
    """Reads the data set.

    Args:
        folder: holds `clinc150.json`; what the environment variable says.

    Raises:
        errors.ConfigError: there is no such file, or it is not that data set.
    """
    if not folder:
        raise errors.ConfigError(f"{VARIABLE} is not set; it names the folder with {FILE}")
    path = pathlib.Path(folder) / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        train: dict[str, list[str]] = {}
        for text, intent in content["train"]:
            train.setdefault(intent, []).append(text)
        return Intents(
            train={intent: tuple(train[intent]) for intent in sorted(train)},
            test=tuple((text, intent) for text, intent in content["test"]),
            foreign=tuple(text for text, _ in content["oos_test"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise errors.ConfigError(f"{path} can't be read as CLINC150: {error}") from error


def trials(intents: Intents) -> list[Trial]:
    """Everything that is tried, the same in every run.

    All intents against the out-of-scope questions, with 10 and 5 examples for three samples of
    them; then two draws of 40 intents left out, whose questions are the near misses.
    """
    found = []
    for examples in EXAMPLES:
        for seed in range(1 if examples == ALL else _DRAWS):
            cards = _sample(intents.train, examples, seed)
            found.append(Trial(examples, False, cards, intents.test, intents.foreign))
    for examples in EXAMPLES:
        for seed in range(_NEAR_DRAWS):
            names = random.Random(f"left out {seed}").sample(sorted(intents.train), _LEFT_OUT)
            kept = {i: told for i, told in intents.train.items() if i not in names}
            found.append(
                Trial(
                    examples=examples,
                    near=True,
                    cards=_sample(kept, examples, seed),
                    inside=tuple(one for one in intents.test if one[1] in kept),
                    outside=tuple(text for text, intent in intents.test if intent in names),
                )
            )
    return found


def _sample(
    train: Mapping[str, tuple[str, ...]], examples: int, seed: int
) -> dict[str, tuple[str, ...]]:
    rng = random.Random(f"{examples} examples {seed}")
    return {
        intent: told if len(told) <= examples else tuple(rng.sample(told, examples))
        for intent, told in train.items()
    }
