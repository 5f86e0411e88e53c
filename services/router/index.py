"""The semantic index: one question against every card, exactly.

An index never changes: adding or removing cards makes another one, so that a question that is
being answered sees one consistent set. Cards are kept in the order of their identities, which makes
the answer independent of the order in which they came. Knows nothing about probabilities.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from services.router import discriminant, lexicon, words
from services.router import profile as profiles
from services.router import space as spaces

Column = npt.NDArray[np.float64]
_NEAREST = 3


@dataclasses.dataclass(frozen=True)
class Evidence:
    """How one question relates to each card; every array has shape (cards,)."""

    nearest: Column
    """Cosine to the nearest example."""
    remoteness: Column
    """Distance from the centroid over the distance usual for the card's own examples."""
    kin: Column
    """Mean cosine to the three nearest examples in the space of all cards; 0 without one."""
    boundary: Column
    """How far within the card's boundary against those next to it; 0 without a space."""
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
        bounded: bool = True,
        rarities_of: Index | None = None,
    ) -> None:
        """Lays out the profiles of some cards, each identity once.

        Args:
            found: the profiles.
            space: in which questions are compared besides.
            bounded: whether cards have boundaries, which take a while to draw; without, they say
                nothing, also to the calibration.
            rarities_of: the cards that say how rare a word is; by default these.
        """
        self.space, self.bounded = space, bounded
        self._lexicon: lexicon.Lexicon
        self._boundaries: discriminant.Discriminants | None = None
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
        postings: dict[str, list[tuple[int, float]]] = collections.defaultdict(list)
        for at, found_profile in enumerate(self.profiles):
            told = {word for one in found_profile.statements for word in one.words}
            saliences = dict.fromkeys(told, 0.0) | dict(found_profile.salience)
            for word, salience in saliences.items():
                postings[word].append((at, salience))
        self._postings = {
            word: (np.array([at for at, _ in found]), np.array([salience for _, salience in found]))
            for word, found in postings.items()
        }
        self._askers: dict[str, set[int]] = collections.defaultdict(set)
        for at, found_profile in enumerate(self.profiles):
            for example in found_profile.examples:
                self._askers[example.folded].add(at)
        said = [(at, s.vector) for at, p in enumerate(self.profiles) for s in p.statements]
        self._speaker = np.array([at for at, _ in said], dtype=np.int64)
        self._statements_S_D = np.stack([v for _, v in said]) if said else np.zeros((0, 0))
        rarities = rarities_of._lexicon if rarities_of and rarities_of.profiles else None
        self._lexicon = lexicon.Lexicon([p.told for p in self.profiles], rarities)
        if space is not None:
            self._directions_R_D = space.directions(self._examples_R_D)
            if bounded:
                self._boundaries = discriminant.Discriminants(self._directions_R_D, self._counts)

    def __len__(self) -> int:
        return len(self.profiles)

    def changed(self, add: Iterable[profiles.Profile] = (), remove: Iterable[str] = ()) -> Index:
        """Another index with some cards more and some identities less."""
        gone = set(remove)
        kept = [p for p in self.profiles if p.identity not in gone]
        made = Index([*kept, *add], self.space, bounded=False)
        made.bounded = self.bounded
        if made.profiles and made.space is not None and self.bounded:
            # Those of the others would change little; a calibration draws all anew.
            made._boundaries = discriminant.Discriminants(
                made._directions_R_D, made._counts, self._drawn(made, {p.identity for p in kept})
            )
        return made

    def _drawn(self, other: Index, kept: Collection[str]) -> dict[int, discriminant.Boundary]:
        """The boundaries of some cards, by the places that they have in another index."""
        if self._boundaries is None or len(self) < 2:
            return {}
        places = {p.identity: at for at, p in enumerate(self.profiles) if p.identity in kept}
        return {
            at: self._boundaries.boundary(places[p.identity])
            for at, p in enumerate(other.profiles)
            if p.identity in places
        }

    def within(self, space: spaces.Space | None) -> Index:
        """The same cards in another space."""
        return Index(self.profiles, space, self.bounded)

    def search(self, question: profiles.Question) -> Evidence:
        """Compares a question with every card; an empty index gives empty arrays."""
        if not self.profiles:
            none = np.zeros(0)
            nothing: dict[str, Any] = {c.name: none for c in dataclasses.fields(Evidence)}
            return Evidence(**nothing | {"nearest_example": np.zeros(0, dtype=np.int64)})
        nearest, nearest_row = self._nearest(self._examples_R_D @ question.vector)
        kin = boundary = np.zeros(len(self.profiles))
        if self.space is not None:
            direction_D = self.space.directions(question.vector)
            kin = self._nearest_few(self._directions_R_D @ direction_D)
            if self._boundaries is not None:
                boundary = self._boundaries.of(direction_D)
        centroid = (self._centroids_C_D @ question.vector).astype(np.float64)
        distance = np.sqrt(np.maximum(2.0 - 2.0 * centroid, 0.0))
        anchor, shared, foreign, unexplained = self._compare_words(question)
        verbatim = np.zeros(len(self.profiles))
        verbatim[list(self._askers.get(question.folded, ()))] = 1.0
        return Evidence(
            verbatim=verbatim,
            nearest=nearest,
            kin=kin,
            boundary=boundary,
            lexical=self._lexicon.cosines(question.terms),
            remoteness=distance / np.maximum(self._spreads, 0.5),
            said=self._nearest_statement(question, nearest),
            anchor=anchor,
            shared=shared,
            foreign=foreign,
            misnamed=(foreign >= words.NAME_WEIGHT).astype(np.float64),
            unexplained=unexplained,
            nearest_example=nearest_row - self._starts,
        )

    def _nearest(self, similarity_R: profiles.Vectors) -> tuple[Column, npt.NDArray[np.int64]]:
        """Each card's most similar example: how similar, and its row."""
        best_C = np.maximum.reduceat(similarity_R, self._starts)
        # The first of those that are as similar, in the card's own order.
        hits = np.flatnonzero(similarity_R == best_C[self._owner])
        row_C = hits[np.unique(self._owner[hits], return_index=True)[1]]
        return best_C.astype(np.float64), row_C

    def _nearest_few(self, similarity_R: profiles.Vectors) -> Column:
        """Each card's mean similarity of the most similar examples."""
        left_R, total_C = similarity_R.copy(), np.zeros(len(self.profiles))
        for depth in range(_NEAREST):
            best_C, row_C = self._nearest(left_R)
            total_C += np.where(self._counts > depth, best_C, 0.0)
            left_R[row_C] = -np.inf
        few: Column = total_C / np.minimum(self._counts, _NEAREST)
        return few

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
            if (posting := self._postings.get(word)) is not None:
                at, salience = posting
                absent[at] = False
                anchor[at] = np.maximum(anchor[at], salience)
                shared[at] = np.maximum(shared[at], weight)
                explained[at] += weight
            foreign[absent] = np.maximum(foreign[absent], weight)
        total = sum(question.words.values())
        unexplained = 1.0 - explained / total if total > 0 else np.ones(cards)
        return anchor, shared, foreign, unexplained
