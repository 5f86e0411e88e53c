"""How alike the words of a question are to those of a card's examples, rare ones first.

Cosine of tf-idf vectors over words and pairs of neighbouring words (Salton & Buckley, 1988); a
card's vector is the sum of those of its examples. Embedders blur what words keep apart: `transfer`
and `transaction`, an unusual verb. Knows nothing about vectors of embedders.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?", re.UNICODE)
_MOST_WORDS = 200
"""Of a question; those behind are not looked at."""
_REMEMBERED_CARDS = 256
"""Of up to half a megabyte, with a thousand examples each."""


def terms(text: str) -> collections.Counter[str]:
    """Words in lower case and pairs of neighbours, as often as they occur."""
    words = [match[0].lower() for match in _WORD.finditer(text)][:_MOST_WORDS]
    return collections.Counter([*words, *(f"{a} {b}" for a, b in itertools.pairwise(words))])


@dataclasses.dataclass(frozen=True, eq=False)
class Told:
    """The terms of one card's example questions; equal to itself alone, and so remembered."""

    examples: tuple[Mapping[str, int], ...]
    """Of each example: how often it has each term."""


class Lexicon:
    """The words of some cards."""

    def __init__(self, told: Sequence[Told], rarities_of: Lexicon | None = None) -> None:
        """Takes the terms of each card's example questions.

        Args:
            told: of each card.
            rarities_of: says how rare words are; by default these cards themselves. It remembers
                the vectors of the latest cards, so that these make one soon after another.
        """
        if rarities_of is None:
            examples = [counts for card in told for counts in card.examples]
            frequency = collections.Counter(term for counts in examples for term in counts)
            count = len(examples)
            self._rarity = {t: math.log((count + 1) / (n + 1)) + 1 for t, n in frequency.items()}
            self._unseen = math.log(count + 1) + 1
            self._remembered = collections.OrderedDict[Told, dict[str, float]]()
            vectors = map(self._vector, told)
        else:
            self._rarity, self._unseen = rarities_of._rarity, rarities_of._unseen
            self._remembered = rarities_of._remembered
            vectors = map(self._recalled, told)
        self._cards = len(told)
        postings: dict[str, list[tuple[int, float]]] = collections.defaultdict(list)
        for at, vector in enumerate(vectors):
            for term, weight in vector.items():
                postings[term].append((at, weight))
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

    def _recalled(self, card: Told) -> dict[str, float]:
        """The same as `_vector`; any thread may ask."""
        vector = self._remembered.get(card)
        if vector is None:
            vector = self._remembered[card] = self._vector(card)
            if len(self._remembered) > _REMEMBERED_CARDS:
                self._remembered.popitem(last=False)
        return vector

    def _vector(self, card: Told) -> dict[str, float]:
        """Of unit length."""
        total: dict[str, float] = collections.defaultdict(float)
        for counts in card.examples:
            for term, weight in self._weights(counts).items():
                total[term] += weight
        length = _length(total.values())
        return {term: weight / length for term, weight in total.items()}

    def _weights(self, counts: Mapping[str, int]) -> dict[str, float]:
        weights = {
            term: (1 + math.log(n)) * self._rarity.get(term, self._unseen)
            for term, n in counts.items()
        }
        length = _length(weights.values())
        return {term: weight / length for term, weight in weights.items()}


def _length(weights: Iterable[float]) -> float:
    return math.sqrt(sum(weight * weight for weight in weights)) or 1.0
