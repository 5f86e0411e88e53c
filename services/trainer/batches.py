"""Which questions meet in a batch: facts take turns, whatever the number of their wordings.

Endless and decided by a seed alone, so that a resumed training sees what it would have seen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from services.trainer import data

T = TypeVar("T")
Mix = Callable[[random.Random, Sequence[data.Example]], data.Example]
"""Makes one more question out of a fact's wordings."""

_KEPT_OF_ONE, _TAKEN_OF_ANOTHER = 0.75, 0.35
"""Shares of the words in a mixed question."""


def cycle(items: Sequence[data.Example], rows: int, seed: int) -> Iterator[list[data.Example]]:
    """Shuffled batches of single questions, each epoch in another order."""
    drawn = _shuffled(items, random.Random(seed))
    while items and rows:
        yield [next(drawn) for _ in range(rows)]


def by_fact(
    facts: Sequence[Sequence[data.Example]], rows: int, seed: int, mixed_share: float, mix: Mix
) -> Iterator[list[data.Example]]:
    """Batches in which every fact is as frequent as any other.

    Args:
        facts: the wordings of each; no fact is without.
        rows: questions a batch.
        seed: decides everything.
        mixed_share: of the questions are made by `mix` instead of being wordings as they are.
        mix: makes them.
    """
    rng = random.Random(seed)
    turns = _shuffled(range(len(facts)), rng)
    wordings = [_shuffled(fact, rng) for fact in facts]
    while True:
        batch = []
        for _ in range(rows):
            fact = next(turns)
            whole = next(wordings[fact])
            mixed = rng.random() < mixed_share
            batch.append(mix(rng, facts[fact]) if mixed else whole)
        yield batch


def mixed_question(rng: random.Random, questions: Sequence[str], answer: str) -> str:
    """Most words of one wording with some of another, or of the answer, behind them.

    People put into a question what the sentence that answers it says beside the answer.
    """
    words = [word for word in rng.choice(questions).split() if rng.random() < _KEPT_OF_ONE]
    other = rng.choice((rng.choice(questions), answer)).rstrip(".").split()
    words += [word for word in other if rng.random() < _TAKEN_OF_ANOTHER]
    return " ".join(words or other).rstrip("?") + "?"


def _shuffled(items: Sequence[T], rng: random.Random) -> Iterator[T]:
    while items:
        epoch = list(items)
        rng.shuffle(epoch)
        yield from epoch
