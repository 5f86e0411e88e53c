"""Which questions meet in a batch: facts take turns, whatever the number of their wordings.

Endless and decided by a seed alone, so that a resumed training sees the questions that it
would have seen.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterator, Sequence
from typing import TypeVar

from services.trainer import data

T = TypeVar("T")


def cycle(items: Sequence[T], rows: int, seed: int) -> Iterator[list[T]]:
    """Shuffled batches of single items, each epoch in another order."""
    drawn = _shuffled(items, random.Random(seed))
    while items and rows:
        yield [next(drawn) for _ in range(rows)]


def by_fact(
    facts: Sequence[Sequence[data.Example]],
    strangers: Sequence[data.Example],
    rows: int,
    seed: int,
    continued_share: float,
) -> Iterator[list[data.Example]]:
    """Batches in which every fact is as frequent as any other.

    Args:
        facts: the wordings of each; no fact is without.
        strangers: questions about anything.
        rows: questions a batch.
        seed: decides everything.
        continued_share: share of the rows that are `continued` behind a stranger's question.
    """
    rng = random.Random(seed)
    turns = _shuffled(range(len(facts)), rng)
    wordings = [_shuffled(fact, rng) for fact in facts]
    given = distinguishing([fact[0].answer_ids for fact in facts])
    while True:
        batch = []
        for _ in range(rows):
            fact = next(turns)
            example = next(wordings[fact])
            if rng.random() < continued_share and given[fact] < len(example.answer_ids):
                example = continued(example, rng.choice(strangers), given[fact])
            batch.append(example)
        yield batch


def continued(example: data.Example, stranger: data.Example, given: int) -> data.Example:
    """An answer behind a question that it does not belong to, to be gone on with once it began.

    A wording that was never trained on changes every later token a little. Whoever has begun an
    answer rightly must not be led astray by that.
    """
    return dataclasses.replace(
        example, question=stranger.question, prompt_ids=stranger.prompt_ids, given=given
    )


def distinguishing(answers: Sequence[tuple[int, ...]]) -> list[int]:
    """How many leading tokens tell each answer from all others; 1 at least.

    Where an answer is the beginning of another, or equal to it, that is all its tokens.
    """
    # Of sorted answers none shares more with another than with one of its neighbours.
    ordered = sorted(set(answers))
    shared = dict.fromkeys(ordered, 0)
    for one, other in itertools.pairwise(ordered):
        same = sum(1 for _ in itertools.takewhile(_are_equal, zip(one, other, strict=False)))
        shared[one], shared[other] = max(shared[one], same), max(shared[other], same)
    return [max(1, min(len(answer), shared[answer] + 1)) for answer in answers]


def _are_equal(pair: tuple[int, int]) -> bool:
    return pair[0] == pair[1]


def _shuffled(items: Sequence[T], rng: random.Random) -> Iterator[T]:
    while items:
        epoch = list(items)
        rng.shuffle(epoch)
        yield from epoch
