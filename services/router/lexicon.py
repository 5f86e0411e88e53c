"""How alike the words of a question are to those of a card's examples, rare ones first.

Cosine of tf-idf vectors over words and pairs of neighbouring words (Salton & Buckley, 1988); a
card's vector is the sum of those of its examples. Embedders blur what words keep apart: `transfer`
and `transaction`, an unusual verb. Knows nothing about vectors of embedders.
"""

from __future__ import annotations

import collections
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?", re.UNICODE)
_MOST_WORDS = 200
"""Of a question; those behind are not looked at."""


def terms(text: str) -> collections.Counter[str]:
    """Words in lower case and pairs of neighbours, as often as they occur."""
    words = [match[0].lower() for match in _WORD.finditer(text)][:_MOST_WORDS]
    return collections.Counter([*words, *(f"{a} {b}" for a, b in itertools.pairwise(words))])


class Lexicon:
    """The words of some cards."""

    def __init__(
        self, told: Sequence[Sequence[Mapping[str, int]]], rarities_of: Lexicon | None = None
    ) -> None:
        """Takes the terms of each card's example questions.

        Args:
            told: of each card and example: how often it has each term.
            rarities_of: says how rare words are; by default these cards themselves.
        """
        if rarities_of is None:
            frequency = collections.Counter(t for texts in told for one in texts for t in one)
            count = sum(map(len, told))
            self._rarity = {t: math.log((count + 1) / (n + 1)) + 1 for t, n in frequency.items()}
            self._unseen = math.log(count + 1) + 1
        else:
            self._rarity, self._unseen = rarities_of._rarity, rarities_of._unseen
        self._cards = len(told)
        postings: dict[str, list[tuple[int, float]]] = collections.defaultdict(list)
        for at, texts in enumerate(told):
            total: dict[str, float] = collections.defaultdict(float)
            for counts in texts:
                for term, weight in self._weights(counts).items():
                    total[term] += weight
            length = _length(total.values())
            for term, weight in total.items():
                postings[term].append((at, weight / length))
        self._postings = {
            term: (np.array([at for at, _ in found]), np.array([weight for _, weight in found]))
            for term, found in postings.items()
        }

    def cosines(self, told: Mapping[str, int]) -> npt.NDArray[np.float64]:
        """Of one question's terms with every card, shape (cards,)."""
        found = np.zeros(self._cards)
        for term, weight in self._weights(told).items():
            if (posting := self._postings.get(term)) is not None:
                found[posting[0]] += weight * posting[1]
        return found

    def _weights(self, counts: Mapping[str, int]) -> dict[str, float]:
        weights = {
            term: (1 + math.log(n)) * self._rarity.get(term, self._unseen)
            for term, n in counts.items()
        }
        length = _length(weights.values())
        return {term: weight / length for term, weight in weights.items()}


def _length(weights: Iterable[float]) -> float:
    return math.sqrt(sum(weight * weight for weight in weights)) or 1.0
