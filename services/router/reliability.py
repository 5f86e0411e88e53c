"""How far the router's probabilities are from how often they come true, found out by itself.

Expected calibration error over bins of equal mass (Naeini, Cooper and Hauskrecht, AAAI 2015) of the
first card's probability. What is asked are examples that their card is not told of, examples whose
card is left out as a whole, and questions that belong to none; models fitted without those cards
answer. Knows nothing about embedding.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from services.router import calibration
from services.router import index as indexes
from services.router import profile as profiles

Numbers = npt.NDArray[np.float64]
Fit = Callable[[Sequence[calibration.Rows]], calibration.Model]
"""Fits a model to the parts of a calibration."""
BINS = 15
_FOLDS = 5
_QUESTIONS = 300
"""Of cards, and as many of nobody."""
_CARDS_NEAR = 32
_SAME_QUESTION_COSINE = 0.9
"""From here on another card may well answer a question whose own card is left out."""


@dataclasses.dataclass(frozen=True)
class Bin:
    """Answers that are about equally probable."""

    probability: float
    """Weighted mean of what was said."""
    share: float
    """Weighted share that came true."""
    mass: float
    """Weight of the answers."""


@dataclasses.dataclass(frozen=True)
class Reliability:
    """What a calibration is worth."""

    error: float
    """Expected calibration error (0 to 1), out of sample; NaN where there is nothing to measure."""
    rows: int
    """Questions that it stands on."""


UNKNOWN = Reliability(math.nan, 0)


def bins(
    probability_N: npt.ArrayLike, true_N: npt.ArrayLike, weight_N: npt.ArrayLike | None = None
) -> list[Bin]:
    """At most 15 bins of equally many answers, the least probable first.

    Args:
        probability_N: what was said of each answer.
        true_N: 1 where it came true, else 0.
        weight_N: how much it counts; by default 1.
    """
    said = np.asarray(probability_N, dtype=np.float64)
    true = np.asarray(true_N, dtype=np.float64)
    weight = np.ones(len(said)) if weight_N is None else np.asarray(weight_N, dtype=np.float64)
    order = np.argsort(said, kind="stable")
    masses = [(one, float(weight[one].sum())) for one in np.array_split(order, BINS)]
    return [
        Bin(float(weight[one] @ said[one]) / mass, float(weight[one] @ true[one]) / mass, mass)
        for one, mass in masses
        if mass > 0
    ]


def calibration_error(
    probability_N: npt.ArrayLike, true_N: npt.ArrayLike, weight_N: npt.ArrayLike | None = None
) -> float:
    """Expected calibration error (0 to 1); NaN without answers. Arguments as of `bins`."""
    found = bins(probability_N, true_N, weight_N)
    total = sum(one.mass for one in found)
    gaps = sum(abs(one.probability - one.share) * one.mass for one in found)
    return gaps / total if total > 0 else math.nan


@dataclasses.dataclass(frozen=True)
class _Asked:
    """One question with its evidence against the cards that come near it."""

    rows_K_F: Numbers
    own: int | None
    """The row of its card; None where it has none among them."""
    fold: int


def measure(
    index: indexes.Index,
    unrelated: Sequence[profiles.Question],
    parts: Sequence[calibration.Rows],
    model: calibration.Model,
    fit: Fit,
) -> Reliability:
    """The calibration error of what `fit` makes of some rows, out of sample.

    Questions with a card weigh as much in total as those without, of which one half is of cards
    that are left out and one of nobody. How many of either a router is asked, and how far they are
    from its cards, it can't know: where they differ, so does the error.

    Args:
        index: the cards.
        unrelated: questions that belong to none.
        parts: what the router's own calibration is fitted to.
        model: that calibration; it says which cards come near a question.
        fit: fits it.
    """
    of_cards = _of_cards(index, model)
    known = [one for one in of_cards if one.own is not None]
    unknown = [[one for one in of_cards if one.own is None], _of_nobody(index, unrelated, model)]
    asked = [(one, 1.0 / len(known)) for one in known]
    for group in unknown:
        asked += [(one, 0.5 / len(group)) for one in group]
    said, right, weights = [], [], []
    for fold in range(_FOLDS):
        seen = [_without(part, fold) for part in parts]
        if not asked or not _both([part.labels_N for part in seen]):
            return UNKNOWN
        fitted = fit(seen)
        for one, weight in asked:
            if one.fold == fold:
                first, probability = _decided(fitted, one.rows_K_F)
                said.append(probability)
                right.append(first == one.own)
                weights.append(weight)
    return Reliability(calibration_error(said, right, weights), len(said))


def _of_cards(index: indexes.Index, model: calibration.Model) -> list[_Asked]:
    """Examples of the cards, each asked twice: its card does not know it, or is not there."""
    cards, found = len(index), []
    step = max(1, cards // _QUESTIONS)
    each = max(1, _QUESTIONS // max(cards, 1))
    for at in range(0, cards, step):
        card = index.profiles[at]
        for number in range(0, len(card.examples), max(1, -(-len(card.examples) // each))):
            question = card.examples[number]
            rest = [*card.examples[:number], *card.examples[number + 1 :]]
            evidence = index.search(question)
            rows_C_F, fold = calibration.features(evidence), at * _FOLDS // cards
            others_C_F = np.delete(rows_C_F, at, axis=0)
            if rest:
                left = profiles.build(card.card, rest, card.statements)
                alone = indexes.Index([left], index.space, among=index)
                own_1_F = calibration.features(alone.search(question))
                near_K_F = _near(model, others_C_F)
                found.append(_Asked(np.concatenate([own_1_F, near_K_F]), 0, fold))
            if len(others_C_F) and np.delete(evidence.nearest, at).max() < _SAME_QUESTION_COSINE:
                found.append(_Asked(_near(model, others_C_F), None, fold))
    return found


def _of_nobody(
    index: indexes.Index, unrelated: Sequence[profiles.Question], model: calibration.Model
) -> list[_Asked]:
    if not len(index):
        return []
    chosen = unrelated[:: max(1, -(-len(unrelated) // _QUESTIONS))]
    return [
        _Asked(
            _near(model, calibration.features(index.search(question))),
            None,
            at * _FOLDS // len(chosen),
        )
        for at, question in enumerate(chosen)
    ]


def _near(model: calibration.Model, rows_C_F: Numbers) -> Numbers:
    """The rows that share the probability; the others get next to none."""
    best = np.argsort(-(rows_C_F @ model.ranking_F), kind="stable")[:_CARDS_NEAR]
    return rows_C_F[best]


def _decided(model: calibration.Model, rows_K_F: Numbers) -> tuple[int, float]:
    """The first card's row and its probability, as the router decides."""
    ranks_K = rows_K_F @ model.ranking_F
    first = int(ranks_K.argmax())
    confidence = calibration.sigmoid(rows_K_F[first] @ model.weights_F + model.bias)
    return first, float(confidence / np.exp(ranks_K - ranks_K[first]).sum())


def _folds(part: calibration.Rows) -> npt.NDArray[np.int64]:
    """The number of each row's fold: neighbours of one label share one."""
    folds = np.zeros(len(part.labels_N), dtype=np.int64)
    for label in (0.0, 1.0):
        places = np.flatnonzero(part.labels_N == label)
        folds[places] = np.arange(len(places)) * _FOLDS // max(len(places), 1)
    return folds


def _without(part: calibration.Rows, fold: int) -> calibration.Rows:
    """The rows but for those of a fold; rows stand in the order of the cards."""
    kept_N = _folds(part) != fold
    contrasts = None if part.contrasts is None else _without(part.contrasts, fold)
    return calibration.Rows(
        part.features_N_F[kept_N], part.labels_N[kept_N], part.weights_N[kept_N], contrasts
    )


def _both(labels: Sequence[Numbers]) -> bool:
    return len(labels) > 0 and len(np.unique(np.concatenate(labels))) > 1
