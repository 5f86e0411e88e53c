"""Gathers the rows that the calibration is fitted to: questions against cards, some right.

They come from the practice of `background`, which is always there, and from the active cards, each
question scored as if the card had not had it. Knows nothing about how models are fitted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from services.router import calibration
from services.router import index as indexes
from services.router import profile as profiles
from services.router import space as spaces

Near = Callable[[profiles.Question], Sequence[profiles.Profile]]
"""The cards that a question is compared with."""
_FOLDS = 5
FOLD_SHARPENING = 1.5
"""An index knows half as many examples again as that of a fold (4/5 of those of 4/5 of the cards),
and so tells cards apart better. How much was measured, see docs/adr/0015."""
_QUESTIONS_OF_ALL_CARDS = 900
_NAMELESS_WEIGHT = 0.5
"""Most questions name what they are about."""
_UNTOLD_WEIGHT = 0.5
"""A question about the right thing that the card has no answer to is only half a stranger: from a
new wording of a fact that the card has, vectors and words hardly tell it apart."""
_HARDEST_OF_A_KIND = 3
_UNRELATED_WEIGHT = 3.0
"""Beside the questions of cards left out: most of what no card fits is far from all of them."""
_SAME_SUBJECT_ANCHOR = 0.6
_SAME_QUESTION_COSINE = 0.9


@dataclasses.dataclass(frozen=True)
class Askers:
    """Questions put to one made-up card."""

    belonging: Sequence[profiles.Question]
    """It answers them, and no other card does."""
    nameless: Sequence[profiles.Question]
    """It answers them, and they do not say what they are about: others may as well."""
    namesakes: Sequence[profiles.Question]
    """It would answer them, were they not about something else."""
    untold: Sequence[profiles.Question]
    """About its subject, and it has no answer to them."""


class _Gathered:
    """Rows as they are found."""

    def __init__(self) -> None:
        self._rows: list[tuple[calibration.Matrix, float, float, int]] = []
        self._contrasts: list[tuple[calibration.Matrix, int]] = []
        self._questions = 0

    def asked(self) -> None:
        """What follows is of another question."""
        self._questions += 1

    def right(self, row_F: calibration.Matrix, weight: float = 1.0) -> None:
        self._rows.append((row_F, 1.0, weight, self._questions))

    def wrong(self, rows_C_F: calibration.Matrix, weights_C: calibration.Matrix | float) -> None:
        weights = np.broadcast_to(weights_C, len(rows_C_F))
        self._rows += [
            (row_F, 0.0, float(weight), self._questions)
            for row_F, weight in zip(rows_C_F, weights, strict=True)
        ]

    def contrast(self, own_F: calibration.Matrix, strangers_C_F: calibration.Matrix) -> None:
        self._contrasts += [(own_F - row_F, self._questions) for row_F in strangers_C_F]

    def rows(self) -> calibration.Rows:
        width = len(calibration.SIGNS)
        return calibration.Rows(
            np.array([row for row, _, _, _ in self._rows]).reshape(-1, width),
            np.array([label for _, label, _, _ in self._rows]),
            np.array([weight for _, _, weight, _ in self._rows]),
            np.array([number for _, _, _, number in self._rows], dtype=np.int64),
            calibration.Contrasts(
                np.array([difference for difference, _ in self._contrasts]).reshape(-1, width),
                np.ones(len(self._contrasts)),
                np.array([number for _, number in self._contrasts], dtype=np.int64),
            ),
        )


def practise(
    cards: Sequence[profiles.Profile],
    askers: Sequence[Askers],
    unrelated: Sequence[profiles.Question],
    space: spaces.Space | None = None,
) -> calibration.Rows:
    """Rows from made-up cards: each one's held-out questions, and the hardest strangers.

    Args:
        cards: practice cards.
        askers: of each card, questions that are not among its examples.
        unrelated: questions that belong to none.
        space: of the practice cards.
    """
    index = indexes.Index(cards, space)
    place = {profile.identity: at for at, profile in enumerate(index.profiles)}
    found = _Gathered()
    for card, asked in zip(cards, askers, strict=True):
        own = place[card.identity]
        for question in asked.nameless:
            found.asked()
            found.right(calibration.features(index.search(question))[own], _NAMELESS_WEIGHT)
        for question in asked.belonging:
            found.asked()
            rows_C_F = calibration.features(index.search(question))
            strangers_C_F = np.delete(rows_C_F, own, axis=0)
            found.right(rows_C_F[own])
            found.wrong(_hardest(strangers_C_F), 1.0)
            found.contrast(rows_C_F[own], _hardest(strangers_C_F))
        for question in asked.namesakes:
            found.asked()
            found.wrong(_hardest(calibration.features(index.search(question))), 1.0)
        for question in asked.untold:
            found.asked()
            rows_C_F = calibration.features(index.search(question))
            found.wrong(rows_C_F[own : own + 1], _UNTOLD_WEIGHT)
    for question in unrelated:
        found.asked()
        found.wrong(_hardest(calibration.features(index.search(question))), 1.0)
    return found.rows()


def observe(
    cards: Sequence[profiles.Profile],
    fit: Callable[[Sequence[profiles.Profile]], indexes.Index],
    unrelated: Sequence[profiles.Question],
) -> calibration.Rows:
    """Rows from the active cards by cross-validation (Hastie, Tibshirani and Friedman, ch. 7.10).

    In every fold some cards are left out as a whole, which stand in for what is unknown, and some
    examples of all others, which stand in for new questions. What an index learns from examples
    it learns without them, so that nothing looks more certain than it will be.

    Cards may overlap: nearly the same question says nothing about another card that has it, and
    another card about the same subject counts as one that was asked for what it does not tell.

    Args:
        cards: in a fixed order.
        fit: makes the index of some cards.
        unrelated: questions that belong to none.
    """
    found = _Gathered()
    for number in range(_FOLDS if cards else 0):
        fold = _fold(cards, number)
        if not fold.kept:
            continue
        index = fit(fold.kept)
        place = {profile.identity: at for at, profile in enumerate(index.profiles)}
        for identity, question in fold.held_out:
            found.asked()
            own = place[identity]
            evidence = index.search(question)
            rows_C_F = calibration.features(evidence)
            stranger_C = evidence.nearest < _SAME_QUESTION_COSINE
            stranger_C[own] = False
            found.right(rows_C_F[own])
            found.contrast(rows_C_F[own], _hardest(rows_C_F[stranger_C]))
        for question in fold.unknown:
            found.asked()
            evidence = index.search(question)
            stranger_C = evidence.nearest < _SAME_QUESTION_COSINE
            _unknown(found, calibration.features(evidence)[stranger_C])
        for question in unrelated[number::_FOLDS]:
            found.asked()
            found.wrong(_hardest(calibration.features(index.search(question))), _UNRELATED_WEIGHT)
    return found.rows()


def observe_near(
    cards: Sequence[profiles.Profile],
    near: Near,
    index: Callable[[Sequence[profiles.Profile]], indexes.Index],
    unrelated: Sequence[profiles.Question],
) -> calibration.Rows:
    """The same where cards are so many that a question is compared with the nearest alone.

    Each question is asked once with its card, which does not know it, and once without. What the
    indexes learned from, it learned from so many that the one question makes no difference.

    Args:
        cards: a sample, in a fixed order.
        near: the cards that a question is compared with.
        index: makes the index of some.
        unrelated: questions that belong to none.
    """
    found = _Gathered()
    of_a_card = max(1, round(_QUESTIONS_OF_ALL_CARDS / max(len(cards), 1)))
    for card in cards:
        for question in _some(card.examples, of_a_card):
            rest = [example for example in card.examples if example is not question]
            own = [profiles.build(card.card, rest, card.statements)] if rest else []
            others = [p for p in near(question) if p.identity != card.identity]
            compared = index([*own, *others])
            evidence = compared.search(question)
            rows_C_F = calibration.features(evidence)
            own_C = np.array([p.identity == card.identity for p in compared.profiles], dtype=bool)
            stranger_C = (evidence.nearest < _SAME_QUESTION_COSINE) & ~own_C
            if own:
                found.asked()
                found.right(rows_C_F[own_C][0])
                found.contrast(rows_C_F[own_C][0], _hardest(rows_C_F[stranger_C]))
            found.asked()
            _unknown(found, rows_C_F[stranger_C])
    for question in unrelated if cards else ():
        found.asked()
        rows_C_F = calibration.features(index(near(question)).search(question))
        found.wrong(_hardest(rows_C_F), _UNRELATED_WEIGHT)
    return found.rows()


def _unknown(found: _Gathered, strangers_S_F: calibration.Matrix) -> None:
    """A question whose card is not there: the hardest of the others are wrong."""
    rows_S_F = _hardest(strangers_S_F)
    same_subject_S = rows_S_F[:, _ANCHOR] >= _SAME_SUBJECT_ANCHOR
    found.wrong(rows_S_F, np.where(same_subject_S, _UNTOLD_WEIGHT, 1.0))


@dataclasses.dataclass(frozen=True)
class _Fold:
    kept: list[profiles.Profile]
    """Cards with the examples that they keep."""
    held_out: list[tuple[str, profiles.Question]]
    """Examples that were taken from these, with the identity of their card."""
    unknown: list[profiles.Question]
    """Questions of cards that are not kept."""


def _fold(cards: Sequence[profiles.Profile], number: int) -> _Fold:
    """One of the folds: each example is held out in one of them, each card left out in one."""
    of_a_card = max(1, round(_QUESTIONS_OF_ALL_CARDS / len(cards)))
    # Of more cards than there are questions to ask, a part is asked.
    step = max(1, len(cards) // _QUESTIONS_OF_ALL_CARDS)
    fold = _Fold([], [], [])
    for at, card in enumerate(cards):
        turn = (number - at) % _FOLDS
        quota = 0 if at % step else of_a_card
        if turn == 0:
            fold.unknown.extend(_some(card.examples, quota))
            continue
        kept, taken = list[profiles.Question](), list[profiles.Question]()
        for place, example in enumerate(card.examples):
            (kept if (place + 1 - turn) % _FOLDS else taken).append(example)
        if not kept:
            fold.unknown.extend(_some(taken, quota))
        elif not taken:
            fold.kept.append(card)
        else:
            fold.kept.append(profiles.build(card.card, kept, card.statements))
            some = _some(taken, -(-quota // _FOLDS) if turn <= quota else 0)
            fold.held_out.extend((card.identity, example) for example in some)
    return fold


def _some(examples: Sequence[profiles.Question], most: int) -> Sequence[profiles.Question]:
    """At most so many, spread evenly."""
    return examples[:: max(1, len(examples) // max(most, 1))][:most]


_ANCHOR, _NEAREST, _KIN, _BOUNDARY, _LEXICAL = map(
    calibration.FEATURES.index, ("anchor", "nearest", "kin", "boundary", "lexical")
)


def _hardest(rows_C_F: calibration.Matrix) -> calibration.Matrix:
    """The rows that look most like a match by one kind of likeness or another.

    Shape (0 to 12, features). Those of one kind alone would make that kind look misleading.
    """
    if not len(rows_C_F):
        return rows_C_F
    kinds_K_C = rows_C_F[:, [_NEAREST, _KIN, _BOUNDARY, _LEXICAL]].T.copy()
    kinds_K_C[0] += rows_C_F[:, _ANCHOR]
    most = min(_HARDEST_OF_A_KIND, len(rows_C_F))
    return rows_C_F[np.unique(np.argpartition(-kinds_K_C, most - 1, axis=1)[:, :most])]
