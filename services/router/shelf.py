"""Many cards, compactly, and which of them are worth a close look for a question.

Beyond some thousands of cards no question can be compared with each. A shelf keeps a card as one
row of text and its vectors as half floats, and finds those whose texts lie nearest and those that
share the question's rarest words. Only these become profiles again. A change touches one card.
Knows nothing about probabilities or about who asks.

Any thread may read while another writes: a reader waits until a few cards have been changed.
"""

from __future__ import annotations

import array
import collections
import dataclasses
import hashlib
import heapq
import itertools
import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from services.router import mentions, neighbours, words
from services.router import profile as profiles
from shared import errors

SAMPLE_CARDS = 1_000
_TEXTS_SEEN, _MOST_TEXTS_SEEN = 256, 4_096
"""The nearest ones whose cards come into question: so many, more where they are of few cards."""
_TEXT_BITS = 16
"""Of a vector's key: which text of its card."""
_TEXTS_AT_A_TIME = 32
_CARDS_AT_A_TIME = 64
_SHORTLIST_CARDS = 24
_MOST_EXAMPLES, _LEAST_CARDS = 256, 8
"""A shortlist ends where its cards have so many examples together, but has so many cards first."""
_CACHED_PROFILES = 4_096
_GONE = 2**64 - 1


@dataclasses.dataclass(frozen=True)
class Found:
    """The card of a name."""

    identity: str
    """`name@digest`."""
    virtual: bool
    """Whether it is yet to be fetched."""


@dataclasses.dataclass(frozen=True)
class _Row:
    """What is kept of a card beside its vectors."""

    card: profiles.Card
    virtual: bool

    def to_json(self) -> bytes:
        fields = [self.virtual, *(getattr(self.card, f.name) for f in _FIELDS)]
        text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
        # Half a surrogate pair in a description is no reason to lose the card; `loads` reads it.
        return text.encode(errors="surrogatepass")

    @classmethod
    def from_json(cls, data: bytes) -> _Row:
        virtual, *values = json.loads(data)
        told: dict[str, Any] = {f.name: v for f, v in zip(_FIELDS, values, strict=True)}
        lists = {name: tuple(v) for name, v in told.items() if isinstance(v, list)}
        return cls(profiles.Card(**told | lists), virtual)

    @property
    def texts(self) -> list[str]:
        """Its examples and statements, each once: the order is that of their vectors."""
        return list(dict.fromkeys((*self.card.examples, *self.card.statements)))


_FIELDS = dataclasses.fields(profiles.Card)


class Shelf:
    """A mutable store of cards, one version of each name."""

    def __init__(self, dimension: int, weigher: words.Words) -> None:
        """Starts empty.

        Args:
            dimension: of every vector.
            weigher: splits texts into weighed words; those of profiles come from it, too.
        """
        self._words = weigher
        self._neighbours = neighbours.Neighbours(dimension)
        self._rows: list[bytes | None] = []
        """By number. No number is given twice; a card that is gone leaves None."""
        self._counts = array.array("I")
        """By number: examples."""
        self._draws = array.array("Q")
        """By number: a random number that is a card's own, whenever it comes."""
        self._numbers: dict[str, int] = {}
        self._mentions = mentions.Mentions()
        self._sample: tuple[int, ...] = ()
        self._highest_draw = _GONE
        self._stale = False
        self._cache: collections.OrderedDict[int, profiles.Profile] = collections.OrderedDict()
        self._turns = _Turns()
        self._writing = threading.Lock()
        self.examples = 0
        """Of all cards together."""

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def sample(self) -> tuple[int, ...]:
        """Numbers of up to 1,000 cards, drawn at random by their identities alone."""
        return self._sample

    def find(self, name: str) -> Found | None:
        """What is here under a name."""
        number = self._numbers.get(name)
        data = None if number is None else self._rows[number]
        if data is None:
            return None
        row = _Row.from_json(data)
        return Found(row.card.identity, row.virtual)

    def names(self) -> list[str]:
        """Of all cards, in the order in which they came."""
        return list(self._numbers)

    def numbers(self) -> list[int]:
        """Of all cards, in that order."""
        return list(self._numbers.values())

    def add(self, found: Sequence[profiles.Profile], virtual: bool) -> None:
        """Puts cards here, each in the place of any other version of its name.

        Args:
            found: their profiles.
            virtual: whether they are yet to be fetched.

        Raises:
            errors.InvalidInputError: a card has too many texts, or a vector of another dimension.
        """
        with self._writing:
            for one in found:
                self._put(one, virtual)
                if self._neighbours.crowded:
                    arranged = self._neighbours.arranged()
                    with self._turns:
                        self._neighbours = arranged
            self._draw()

    def remove(self, names: Iterable[str]) -> None:
        """Forgets cards; an unknown name is fine."""
        with self._writing:
            for name in names:
                with self._turns:
                    number = self._numbers.pop(name, None)
                    if number is not None:
                        self._forget(number)
            self._draw()

    def shortlist(self, question: profiles.Question, least: int = 1) -> list[profiles.Profile]:
        """The cards that are worth a comparison with a question, in no order.

        Some 24, or as few as 8 where they have many examples.

        Args:
            question: with its vector and words.
            least: how many are needed.
        """
        count, fewest = max(_SHORTLIST_CARDS, least), max(_LEAST_CARDS, least)
        with self._turns:
            near = self._nearest(question.vector, fewest)
            worth = self._mentions.of(question.words)
            # Of those that say the same words, those that lie near come first.
            places = {number: place for place, number in enumerate(near)}
            saying = heapq.nsmallest(count, worth, key=lambda n: (-worth[n], places.get(n, n)))
            chosen = self._few(_interleaved(near, saying), count, fewest)
        return self.load(chosen)

    def nearest(self, vector: profiles.Vectors, count: int) -> list[str]:
        """Names of the cards whose texts lie nearest to a vector, that one first."""
        with self._turns:
            rows = [self._rows[number] for number in self._nearest(vector, count)[:count]]
        return [_Row.from_json(row).card.name for row in rows if row is not None]

    def load(self, numbers: Iterable[int]) -> list[profiles.Profile]:
        """Those of some cards that are still here; vectors are as exact as half floats."""
        found: list[profiles.Profile] = []
        left = iter(numbers)
        while some := list(itertools.islice(left, _CARDS_AT_A_TIME)):
            with self._turns:
                kept = {n: self._cache[n] for n in some if n in self._cache and self._rows[n]}
                for number in kept:
                    self._cache.move_to_end(number)
                stored = {n: self._stored(n) for n in some if n not in kept}
            built = {n: self._built(*held) for n, held in stored.items() if held is not None}
            with self._turns:
                self._cache |= built
                while len(self._cache) > _CACHED_PROFILES:
                    self._cache.popitem(last=False)
            found += kept.values()
            found += built.values()
        return found

    def _put(self, one: profiles.Profile, virtual: bool) -> None:
        row = _Row(one.card, virtual)
        vectors = {q.text: q.vector for q in (*one.statements, *one.examples)}
        vectors_T_D = np.stack([vectors[text] for text in row.texts])
        if len(vectors_T_D) > 1 << _TEXT_BITS or vectors_T_D.shape[1] != self._neighbours.dimension:
            raise errors.InvalidInputError(
                f"card {one.identity} has {len(vectors_T_D):,} texts of dimension "
                f"{vectors_T_D.shape[1]}, expected at most {1 << _TEXT_BITS:,} of dimension "
                f"{self._neighbours.dimension}; register it with fewer examples, embedded like "
                "the others"
            )
        weights = _heaviest(q.words for q in (*one.examples, *one.statements))
        with self._turns:
            number = len(self._rows)
            # Not to be seen before all of it is here.
            self._rows.append(None)
            self._counts.append(len(one.examples))
            self._draws.append(_GONE)
        keys = _keys(number, len(vectors_T_D))
        for start in range(0, len(keys), _TEXTS_AT_A_TIME):
            some = slice(start, start + _TEXTS_AT_A_TIME)
            with self._turns:
                self._neighbours.add(keys[some], vectors_T_D[some])
        with self._turns:
            former = self._numbers.get(one.card.name)
            if former is not None:
                self._forget(former)
            self._rows[number] = row.to_json()
            self._numbers[one.card.name] = number
            self._mentions.add(number, weights)
            self._draws[number] = _draw_of(one.identity)
            self._stale |= self._draws[number] < self._highest_draw
            self.examples += len(one.examples)

    def _forget(self, number: int) -> None:
        data = self._rows[number]
        if data is None:
            return
        row = _Row.from_json(data)
        self._stale |= self._draws[number] <= self._highest_draw
        self._rows[number], self._draws[number] = None, _GONE
        self._mentions.remove(number, self._weights(row))
        self._neighbours.remove(_keys(number, len(row.texts)))
        self._cache.pop(number, None)
        self.examples -= self._counts[number]

    def _draw(self) -> None:
        """Draws the sample anew, if another one is due."""
        if not self._stale:
            return
        draws_N = np.array(self._draws, dtype=np.uint64)
        count = min(SAMPLE_CARDS, len(self._numbers))
        lowest = np.argpartition(draws_N, count - 1)[:count] if count else np.zeros(0, dtype=int)
        self._highest_draw = int(draws_N[lowest].max()) if count == SAMPLE_CARDS else _GONE
        self._sample, self._stale = tuple(sorted(lowest.tolist())), False

    def _nearest(self, vector: profiles.Vectors, fewest: int) -> list[int]:
        """Numbers of the cards of the nearest texts, nearest first, each once."""
        texts = _TEXTS_SEEN
        while self._numbers:
            keys = self._neighbours.nearest(vector, texts)
            numbers = dict.fromkeys(key >> _TEXT_BITS for key in keys)
            cards = [n for n in numbers if self._rows[n] is not None]
            # Many like texts of one card must not hide the others.
            everything = len(keys) == len(self._neighbours)
            if len(cards) >= fewest or everything or texts >= _MOST_TEXTS_SEEN:
                return cards
            texts *= 4
        return []

    def _few(self, numbers: Iterable[int], count: int, least: int) -> list[int]:
        chosen: list[int] = []
        examples = 0
        for number in numbers:
            examples += self._counts[number]
            if len(chosen) == count or (examples > _MOST_EXAMPLES and len(chosen) >= least):
                break
            chosen.append(number)
        return chosen

    def _stored(self, number: int) -> tuple[_Row, profiles.Vectors] | None:
        data = self._rows[number]
        if data is None:
            return None
        row = _Row.from_json(data)
        vectors_T_D = self._neighbours.vectors(_keys(number, len(row.texts)))
        lengths_T_1 = np.linalg.norm(vectors_T_D, axis=1, keepdims=True)
        return row, (vectors_T_D / np.maximum(lengths_T_1, 1e-6)).astype(np.float32)

    def _built(self, row: _Row, vectors_T_D: profiles.Vectors) -> profiles.Profile:
        told = {
            text: profiles.Question(text, vector, self._words.of(text))
            for text, vector in zip(row.texts, vectors_T_D, strict=True)
        }
        examples, statements = (
            [told[text] for text in texts] for texts in (row.card.examples, row.card.statements)
        )
        return profiles.build(row.card, examples, statements)

    def _weights(self, row: _Row) -> Mapping[str, float]:
        """Of all its words."""
        return _heaviest(map(self._words.of, row.texts))


def _heaviest(told: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Words with the highest weight that any text gives them: a name stays one in lower case."""
    found: dict[str, float] = {}
    for words_of_text in told:
        for word, weight in words_of_text.items():
            found[word] = max(weight, found.get(word, 0.0))
    return found


class _Turns:
    """A lock that who waits gets next: one that comes again and again keeps nobody out."""

    def __init__(self) -> None:
        self._next, self._held = threading.Lock(), threading.Lock()

    def __enter__(self) -> None:
        with self._next:
            self._held.acquire()

    def __exit__(self, *_: object) -> None:
        self._held.release()


def _keys(number: int, texts: int) -> neighbours.Keys:
    return np.arange(texts, dtype=np.int64) + (number << _TEXT_BITS)


def _draw_of(identity: str) -> int:
    digest = hashlib.blake2b(identity.encode(), digest_size=8).digest()
    return min(int.from_bytes(digest), _GONE - 1)


def _interleaved(near: Sequence[int], saying: Sequence[int]) -> Iterator[int]:
    """Two that lie near, then one that says the words, and so on; each once."""
    ranked = [(place / 2, number) for place, number in enumerate(near)]
    ranked += [(place + 0.5, number) for place, number in enumerate(saying)]
    return iter(dict.fromkeys(number for _, number in sorted(ranked)))
