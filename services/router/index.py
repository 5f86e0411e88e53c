"""The semantic index: one question against every card, exactly.

An index never changes: adding or removing cards makes another one, so that a question that is
being answered sees one consistent set. Cards are kept in the order of their identities, which makes
the answer independent of the order in which they came. Knows nothing about probabilities.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from services.router import lexicon, words
from services.router import profile as profiles
from services.router import space as spaces
from shared import questions

Column = npt.NDArray[np.float64]
_NEAREST = 3


@dataclasses.dataclass(frozen=True)
class Evidence:
    """How one question relates to each card; every array has shape (cards,)."""

    nearest: Column
    """Cosine to the nearest example."""
    nearest_three: Column
    """Mean cosine to the three nearest examples."""
    centroid: Column
    """Cosine to the centroid."""
    remoteness: Column
    """Distance from the centroid over the distance usual for the card's own examples."""
    likelihood: Column
    """Log likelihood ratio of the card in the space of all cards; 0 without a space."""
    kin: Column
    """Mean cosine to the three nearest examples in that space; 0 without one."""
    lexical: Column
    """Cosine of the words with those of the examples, rare ones first."""
    said: Column
    """Cosine to the nearest statement; to the nearest example where no statement is known."""
    anchor: Column
    """Salience of the question's word that the card is most about (0 to 1)."""
    shared: Column
    """Weight of the question's heaviest word that the card contains, too (0 to 2)."""
    foreign: Column
    """Weight of the question's heaviest word that the card does not contain (0 to 2)."""
    misnamed: Column
    """1 where the question says a name that the card does not contain, else 0."""
    unexplained: Column
    """Share of the weight of the question's words that the card does not contain."""
    verbatim: Column
    """1 where the question is one of the card's examples, but for case and signs, else 0."""
    nearest_example: npt.NDArray[np.int64]
    """Index of the nearest example within its card."""


class Index:
    """All active cards in numpy matrices."""

    def __init__(
        self,
        found: Iterable[profiles.Profile] = (),
        space: spaces.Space | None = None,
        among: Index | None = None,
    ) -> None:
        """Lays out the profiles of some cards, each identity once.

        Args:
            found: the profiles.
            space: in which questions are compared besides.
            among: the cards that say how rare a word is; by default these.
        """
        self.space = space
        self._lexicon: lexicon.Lexicon
        by_identity = {profile.identity: profile for profile in found}
        self.profiles = tuple(by_identity[key] for key in sorted(by_identity))
        if not self.profiles:
            return
        self._examples_R_D = np.stack([e.vector for p in self.profiles for e in p.examples])
        self._centroids_C_D = np.stack([p.centroid for p in self.profiles])
        self._counts = np.array([len(p.examples) for p in self.profiles])
        self._starts = np.concatenate([[0], np.cumsum(self._counts)[:-1]])
        self._owner = np.repeat(np.arange(len(self.profiles)), self._counts)
        self._spreads = np.array([p.spread for p in self.profiles])
        self._postings: dict[str, list[tuple[int, float]]] = collections.defaultdict(list)
        for at, found_profile in enumerate(self.profiles):
            told = {word for one in found_profile.statements for word in one.words}
            saliences = dict.fromkeys(told, 0.0) | dict(found_profile.salience)
            for word, salience in saliences.items():
                self._postings[word].append((at, salience))
        self._askers: dict[str, set[int]] = collections.defaultdict(set)
        for at, found_profile in enumerate(self.profiles):
            for example in found_profile.examples:
                self._askers[questions.fold(example.text)].add(at)
        said = [(at, s.vector) for at, p in enumerate(self.profiles) for s in p.statements]
        self._speaker = np.array([at for at, _ in said], dtype=np.int64)
        self._statements_S_D = np.stack([v for _, v in said]) if said else np.zeros((0, 0))
        self._lexicon = lexicon.Lexicon(
            [[e.text for e in p.examples] for p in self.profiles],
            None if among is None else among._lexicon,
        )
        if space is not None:
            points_R_D = space.project(self._examples_R_D)
            means_C_D = np.add.reduceat(points_R_D, self._starts) / self._counts[:, None]
            self._likelihoods = spaces.Likelihoods(space, means_C_D, self._counts)
            self._directions_R_D = space.directions(points_R_D).astype(np.float32)

    def __len__(self) -> int:
        return len(self.profiles)

    def changed(self, add: Iterable[profiles.Profile] = (), remove: Iterable[str] = ()) -> Index:
        """Another index with some cards more and some identities less."""
        gone = set(remove)
        return Index([*(p for p in self.profiles if p.identity not in gone), *add], self.space)

    def search(self, question: profiles.Question) -> Evidence:
        """Compares a question with every card; an empty index gives empty arrays."""
        if not self.profiles:
            none = np.zeros(0)
            nothing: dict[str, Any] = {c.name: none for c in dataclasses.fields(Evidence)}
            return Evidence(**nothing | {"nearest_example": np.zeros(0, dtype=np.int64)})
        similarity_R = (self._examples_R_D @ question.vector).astype(np.float64)
        nearest_three, nearest, nearest_example = self._nearest(similarity_R)
        likelihood = kin = np.zeros(len(self.profiles))
        if self.space is not None:
            point_D = self.space.project(question.vector)
            likelihood = self._likelihoods.of(point_D)
            direction_D = self.space.directions(point_D).astype(np.float32)
            kin, _, _ = self._nearest((self._directions_R_D @ direction_D).astype(np.float64))
        centroid = (self._centroids_C_D @ question.vector).astype(np.float64)
        distance = np.sqrt(np.maximum(2.0 - 2.0 * centroid, 0.0))
        anchor, shared, foreign, unexplained = self._compare_words(question)
        verbatim = np.zeros(len(self.profiles))
        verbatim[list(self._askers.get(questions.fold(question.text), ()))] = 1.0
        return Evidence(
            verbatim=verbatim,
            nearest=nearest,
            nearest_three=nearest_three,
            likelihood=likelihood,
            kin=kin,
            lexical=self._lexicon.cosines(question.text),
            centroid=centroid,
            remoteness=distance / np.maximum(self._spreads, 0.5),
            said=self._nearest_statement(question, nearest),
            anchor=anchor,
            shared=shared,
            foreign=foreign,
            misnamed=(foreign >= words.NAME_WEIGHT).astype(np.float64),
            unexplained=unexplained,
            nearest_example=nearest_example,
        )

    def _nearest(self, similarity_R: Column) -> tuple[Column, Column, npt.NDArray[np.int64]]:
        """Each card's mean of the three most similar examples, the most similar, and its place."""
        left, total = similarity_R.copy(), np.zeros(len(self.profiles))
        nearest, places = similarity_R[:0], self._starts
        for depth in range(_NEAREST):
            best_C = np.maximum.reduceat(left, self._starts)
            # The first of those that are as similar, in the card's own order.
            hits = np.flatnonzero(left == best_C[self._owner])
            first = hits[np.unique(self._owner[hits], return_index=True)[1]]
            if depth == 0:
                nearest, places = best_C, first
            total += np.where(self._counts > depth, best_C, 0.0)
            left[first] = -np.inf
        return total / np.minimum(self._counts, _NEAREST), nearest, places - self._starts

    def _nearest_statement(self, question: profiles.Question, otherwise: Column) -> Column:
        nearest = np.full(len(self.profiles), -np.inf)
        if len(self._speaker):
            cosines = (self._statements_S_D @ question.vector).astype(np.float64)
            np.maximum.at(nearest, self._speaker, cosines)
        return np.where(np.isfinite(nearest), nearest, otherwise)

    def _compare_words(self, question: profiles.Question) -> tuple[Column, Column, Column, Column]:
        cards = len(self.profiles)
        anchor, shared, foreign, explained = (np.zeros(cards) for _ in range(4))
        for word, weight in question.words.items():
            absent = np.ones(cards, dtype=bool)
            for at, salience in self._postings.get(word, ()):
                absent[at] = False
                anchor[at] = max(anchor[at], salience)
                shared[at] = max(shared[at], weight)
                explained[at] += weight
            foreign[absent] = np.maximum(foreign[absent], weight)
        total = sum(question.words.values())
        unexplained = 1.0 - explained / total if total > 0 else np.ones(cards)
        return anchor, shared, foreign, unexplained
