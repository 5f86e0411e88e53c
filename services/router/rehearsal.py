"""What would become of questions were one more card routable: a rehearsal that changes nothing.

Whoever is about to publish a card learns whether its questions find it, and whether it would take
those of others. Blocking and pure: works on indexes that it derives for itself.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from services.router import calibration, decision
from services.router import index as indexes
from services.router import profile as profiles

T = TypeVar("T")
Shortlist = Callable[[profiles.Question], list[profiles.Profile]]
Fit = Callable[[indexes.Index], tuple[indexes.Index, calibration.Model]]
"""An index to the same cards in a space of their own, and the calibration there."""
_RIVALS = 40
"""Cards whose questions are asked: those that lie nearest to the new one, and some others."""
_NEAR_RIVALS = 30
_QUESTIONS = 160
"""Of all rivals together, those that the nearest are asked besides left out."""
_NEAREST = 5
"""Rivals that would lose most: each is asked enough to tell whether it would lose its questions."""
_QUESTIONS_OF_A_NEAREST = 12
_LARGEST_PART = 5
"""At most every fifth example of a card is asked: it is compared as if it had not had them."""
_FEWEST_EXAMPLES = 3
"""A card with fewer has none to spare."""
_PROBES = 20
"""Examples of the new card by which the nearest cards are found."""


@dataclasses.dataclass(frozen=True)
class Tried:
    """One question and who would answer it."""

    question: str
    card: str
    """`name@digest` of the card that would answer; empty where none fits."""
    confidence: float
    """That any card fits, 0 to 1."""
    card_without: str
    """That answers without the new one; empty where none fits."""
    similarity: float = 0.0
    """At the new card, whichever answers: cosine to its nearest example,"""
    reading: str = ""
    """and the example as which it is read, see `decision.Candidate.read_as`. Of questions that were
    asked about alone."""


@dataclasses.dataclass(frozen=True)
class Rehearsal:
    """What became of all questions."""

    questions: tuple[Tried, ...]
    """Those that were asked about, in their order."""
    others: tuple[Tried, ...]
    """Examples of other cards, each asked as if its card had not had it, that found that card."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """The router at one moment."""

    index: indexes.Index
    """All cards, or a sample of those on the shelf."""
    shortlist: Shortlist | None
    """Finds the cards that a question is compared with; None while those are all."""
    model: calibration.Model
    threshold: float
    fit: Fit | None = None
    """Calibrates anew with the new card; None where that would change little."""


def rehearse(
    candidate: profiles.Profile, asked: Sequence[profiles.Question], stage: Stage
) -> Rehearsal:
    """Asks everything with and without the card.

    Args:
        candidate: the card to be; a routable card of its name counts as gone.
        asked: questions to ask as they are.
        stage: the router as it is.
    """
    trial = _Trial(candidate, stage)
    rivals = trial.rivals()
    spared, of_others = {}, list[tuple[str, profiles.Question]]()
    of_a_rival = _QUESTIONS // max(1, len(rivals))
    for place, rival in enumerate(rivals):
        most = max(of_a_rival, _QUESTIONS_OF_A_NEAREST) if place < _NEAREST else of_a_rival
        taken = _some(rival.examples, min(most, -(-len(rival.examples) // _LARGEST_PART)))
        out = {id(example) for example in taken}
        kept = [example for example in rival.examples if id(example) not in out]
        if len(rival.examples) < _FEWEST_EXAMPLES or not kept:
            continue
        spared[rival.identity] = profiles.build(rival.card, kept, rival.statements)
        of_others += [(rival.identity, question) for question in taken]
    questions = tuple(trial.tried(question, is_read=True) for question in asked)
    trial.begin(spared)
    others = [(own, trial.tried(question)) for own, question in of_others]
    # Where not even its own card was found the new one takes nothing away.
    found = tuple(tried for own, tried in others if tried.card_without == own)
    return Rehearsal(questions, found)


class _Trial:
    """Indexes with and without the new card."""

    def __init__(self, candidate: profiles.Profile, stage: Stage) -> None:
        self._candidate, self._stage = candidate, stage
        self._replaced: dict[str, profiles.Profile] = {}
        self._model_with = stage.model
        # How a card reads a question does not depend on other cards.
        self._own = self._index([candidate])
        if stage.shortlist is None:
            gone = [p.identity for p in stage.index.profiles if self._is_earlier(p)]
            self._without = stage.index.changed(remove=gone)
            self._with = self._without.changed([candidate])
            if stage.fit is not None:
                self._with, self._model_with = stage.fit(self._with)

    def begin(self, replaced: dict[str, profiles.Profile]) -> None:
        """From here on some cards, by their identities, have these profiles."""
        self._replaced = replaced
        if self._stage.shortlist is None:
            self._without = self._without.changed(replaced.values(), replaced)
            self._with = self._with.changed(replaced.values(), replaced)

    def tried(self, question: profiles.Question, is_read: bool = False) -> Tried:
        """Who answers a question, and on wish how the new card would read it."""
        without, with_candidate = self._indexes(question)
        before = self._decided(question, without, self._stage.model)
        after = self._decided(question, with_candidate, self._model_with)
        told = Tried(question.text, _chosen(after), after.confidence, _chosen(before))
        if not is_read:
            return told
        own = decision.candidate(question, self._own, self._own.search(question), 0)
        return dataclasses.replace(told, similarity=own.similarity, reading=own.read_as)

    def rivals(self) -> list[profiles.Profile]:
        """The cards that lie nearest to the new one, then others, evenly."""
        nearest: collections.Counter[str] = collections.Counter()
        known = {p.identity: p for p in self._stage.index.profiles}
        for question in _some(self._candidate.examples, _PROBES):
            near = self._stage.index
            if self._stage.shortlist is not None:
                near = self._index(self._stage.shortlist(question))
                known |= {p.identity: p for p in near.profiles}
            for profile, cosine in zip(near.profiles, near.search(question).nearest, strict=True):
                nearest[profile.identity] = max(nearest[profile.identity], cosine)
        usable = {key: p for key, p in known.items() if not self._is_earlier(p)}
        chosen = [key for key, _ in nearest.most_common() if key in usable][:_NEAR_RIVALS]
        left = sorted(usable.keys() - set(chosen))
        return [usable[key] for key in (*chosen, *_some(left, _RIVALS - len(chosen)))]

    def _indexes(self, question: profiles.Question) -> tuple[indexes.Index, indexes.Index]:
        if self._stage.shortlist is None:
            return self._without, self._with
        near = [
            self._replaced.get(p.identity, p)
            for p in self._stage.shortlist(question)
            if not self._is_earlier(p)
        ]
        return self._index(near), self._index([*near, self._candidate])

    def _index(self, cards: Sequence[profiles.Profile]) -> indexes.Index:
        index = self._stage.index
        return indexes.Index(cards, index.space, bounded=False, rarities_of=index)

    def _is_earlier(self, profile: profiles.Profile) -> bool:
        return profile.card.name == self._candidate.card.name

    def _decided(
        self, question: profiles.Question, index: indexes.Index, model: calibration.Model
    ) -> decision.Decision:
        evidence = index.search(question)
        return decision.decide(question, index, evidence, model, 1, self._stage.threshold)


def _chosen(decided: decision.Decision) -> str:
    return "" if decided.dissonance or not decided.candidates else decided.candidates[0].card


def _some(items: Sequence[T], most: int) -> list[T]:
    """At most so many, spread evenly."""
    if most <= 0 or not items:
        return []
    places = np.linspace(0, len(items) - 1, min(most, len(items))).astype(int)
    return [items[at] for at in places]
