"""Which cards say a rare word: an inverted index, for names that embedders blur.

Knows nothing about vectors or about what a card is beside its number.
"""

from __future__ import annotations

import array
import math
from collections.abc import Iterable, Mapping

import numpy as np

_LEAST_WEIGHT = 0.4
"""Of a word that tells cards apart; see `words`."""
_MOST_CARDS = 8_192
"""A word that more cards say is left out for good."""
_MOST_MATCHES = 16_384
"""Of all words of a question together, the rarest words first."""


class Mentions:
    """Numbers of cards by word."""

    def __init__(self) -> None:
        """Starts empty."""
        self._cards: dict[str, array.array[int]] = {}

    def add(self, number: int, weights: Mapping[str, float]) -> None:
        """Notes that a card says these words, once for each card.

        Args:
            number: of the card, 0 to 2^32 - 1.
            weights: of its words; those that say little are passed over.
        """
        for word in _salient(weights):
            cards = self._cards.setdefault(word, array.array("I"))
            # One more than enough says that the word is too common.
            if len(cards) <= _MOST_CARDS:
                cards.append(number)

    def remove(self, number: int, weights: Mapping[str, float]) -> None:
        """Forgets a card; `weights` are those that it was added with."""
        for word in _salient(weights):
            cards = self._cards.get(word)
            if cards is None or len(cards) > _MOST_CARDS or number not in cards:
                continue
            cards.remove(number)
            if not cards:
                del self._cards[word]

    def of(self, weights: Mapping[str, float]) -> dict[int, float]:
        """Cards that say some of a question's words, with how much that is worth.

        A word counts by its weight and by how few cards say it (inverse document frequency).
        """
        found: list[tuple[float, array.array[int]]] = []
        matches = 0
        rarest = sorted(
            (len(self._cards[word]), word) for word in _salient(weights) if word in self._cards
        )
        for cards, word in rarest:
            matches += cards
            if cards > _MOST_CARDS or matches > _MOST_MATCHES:
                break
            found.append((weights[word] * math.log(1 + _MOST_CARDS / cards), self._cards[word]))
        if not found:
            return {}
        numbers = np.concatenate([np.array(cards, dtype=np.int64) for _, cards in found])
        worth = np.repeat([value for value, _ in found], [len(cards) for _, cards in found])
        distinct, place = np.unique(numbers, return_inverse=True)
        totals = np.bincount(place, weights=worth)
        return dict(zip(distinct.tolist(), totals.tolist(), strict=True))


def _salient(weights: Mapping[str, float]) -> Iterable[str]:
    return (word for word, weight in weights.items() if weight >= _LEAST_WEIGHT)
