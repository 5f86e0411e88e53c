"""Which words of a question name something: sentence embeddings blur invented names.

`How tall is the Skarn Holm Lighthouse?` and `How tall is the Tarn Head Lighthouse?` lie close
together for any embedder, yet only one of them is about the card. A word counts the more the rarer
it is, by its rank in the embedder's own vocabulary, and a capital within a sentence makes a name of
any word (the Golden Gate Bridge). Knows nothing about cards or vectors.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?", re.UNICODE)
_COMMON_RANKS = 500
"""The most frequent words say nothing about the subject."""
_UNKNOWN_WEIGHT = 1.5
_CODE_WEIGHT = 1.0
NAME_WEIGHT = 2.0
"""Of a word with a capital within a sentence."""
_NUMBER_WEIGHT = 0.3
_INFLECTED_SHARE = 0.5
_SUFFIXES = ("s", "es", "d", "ed", "ing", "er", "ers", "ly", "ist", "ists")
_LONG_ENOUGH_FOR_A_PLURAL = 4
_REMEMBERED_WORDS = 50_000


class Words:
    """Splits texts into words and weighs them."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        """Takes the vocabulary, most frequent first."""
        self._rank = {word.lower(): rank for rank, word in reversed(list(enumerate(vocabulary)))}
        self._size = max(len(self._rank), _COMMON_RANKS + 2)
        self.weigh = functools.lru_cache(_REMEMBERED_WORDS)(self._weigh)
        """How much one lower-case word says about what a text is about."""

    def of(self, text: str) -> dict[str, float]:
        """The words of a text in their basic form, each with its weight (0 to 2)."""
        found: dict[str, float] = {}
        for match in _WORD.finditer(text):
            word = match[0].lower().removesuffix("'s").replace("'", "")
            if word:
                weight = self.weigh(word)
                if _is_name(match):
                    weight = max(weight, NAME_WEIGHT)
                form = _singular(word)
                found[form] = max(weight, found.get(form, 0.0))
        return found

    def _weigh(self, word: str) -> float:
        if word.isdigit():
            return _NUMBER_WEIGHT
        if any(sign.isdigit() for sign in word):
            return _CODE_WEIGHT
        rank = self._rank.get(word)
        if rank is not None:
            return self._by_rank(rank)
        stems = [word.removesuffix(suffix) for suffix in _SUFFIXES if word.endswith(suffix)]
        ranks = [self._rank[form] for stem in stems for form in (stem, stem + "e")
                 if len(stem) > 2 and form in self._rank]  # fmt: skip
        if ranks:
            return _INFLECTED_SHARE * self._by_rank(min(ranks))
        return _UNKNOWN_WEIGHT

    def _by_rank(self, rank: int) -> float:
        if rank <= _COMMON_RANKS:
            return 0.0
        return math.log(rank / _COMMON_RANKS) / math.log(self._size / _COMMON_RANKS)


def _is_name(match: re.Match[str]) -> bool:
    # Neither an abbreviation nor "I've".
    if not (match[0][0].isupper() and match[0][1:2].islower()):
        return False
    before = match.string[: match.start()].rstrip(" \"'(“‘")
    return bool(before) and before[-1] not in ".?!:\n"


def _singular(word: str) -> str:
    if len(word) < _LONG_ENOUGH_FOR_A_PLURAL or word.endswith("ss"):
        return word
    if word.endswith(("xes", "shes", "ches", "sses")):
        return word[:-2]
    return word.removesuffix("s")
