"""What the router practises on before it knows any card.

Ties `background` (texts) to `calibration` (rows) with the embedder. Knows nothing about the cards
of the store.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from services.router import background, calibration, observation, profile, space, words

Embed = Callable[[Sequence[str]], Awaitable[profile.Vectors]]
"""Texts to vectors of shape (texts, dimension)."""


@dataclasses.dataclass(frozen=True)
class Practice:
    """The ground that every calibration stands on."""

    rows: calibration.Rows
    unrelated: tuple[profile.Question, ...]
    """Questions that belong to no card."""
    sums: space.Sums
    """Of the practice cards: what a space is made of while there are few others."""


async def prepare(embed: Embed, vocabulary: Sequence[str]) -> Practice:
    """Embeds the background and scores the practice cards.

    Args:
        embed: the embedder; one that knows `texts` already, since these are thousands.
        vocabulary: its words, most frequent first.
    """
    weigher = words.Words(vocabulary)
    cards = background.practice(vocabulary)
    groups = _groups(cards, vocabulary)
    texts = [text for group in groups for text in group]
    vectors_N_D = await embed(texts)
    embedded = iter(zip(texts, vectors_N_D, strict=True))
    unrelated, *of_cards = [
        [profile.Question(text, profile.unit(vector), weigher.of(text))
         for _, (text, vector) in zip(group, embedded, strict=False)]
        for group in groups
    ]  # fmt: skip
    practised, askers = [], []
    for number, card in enumerate(cards):
        examples, statements, *asked = of_cards[6 * number : 6 * number + 6]
        made_up = profile.Card(f"practice-{number:03}", "", "", "", card.examples)
        practised.append(profile.build(made_up, examples, statements))
        askers.append(observation.Askers(*asked))
    sums = space.sums(np.stack([e.vector for e in p.examples]) for p in practised)
    rows = observation.practise(practised, askers, unrelated, space.fit(sums))
    return Practice(rows, tuple(unrelated), sums)


def texts(vocabulary: Sequence[str]) -> list[str]:
    """All texts that `prepare` embeds, some of them more than once.

    Args:
        vocabulary: the embedder's words, most frequent first.
    """
    groups = _groups(background.practice(vocabulary), vocabulary)
    return [text for group in groups for text in group]


def _groups(
    cards: Sequence[background.PracticeCard], vocabulary: Sequence[str]
) -> list[tuple[str, ...]]:
    groups: list[tuple[str, ...]] = [background.unrelated(vocabulary)]
    for card in cards:
        groups += [card.examples, card.statements]
        groups += [card.held_out, card.nameless, card.namesakes, card.untold]
    return groups
