"""How far the router's probabilities are from how often they come true, found out by itself.

Expected calibration error (Naeini, Cooper and Hauskrecht, AAAI 2015), over bins of equal mass, of
the first card's probability. What is asked are the questions of `observation`: examples that their
card is not told of, examples whose card is left out as a whole, and questions that belong to none.
Models fitted without those questions answer. Knows nothing about cards.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from services.router import calibration

Numbers = npt.NDArray[np.float64]
Fit = Callable[[Sequence[calibration.Rows]], calibration.Model]
"""Fits a model to the parts of a calibration."""
BINS = 15
_FOLDS = 5


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
    bins: tuple[Bin, ...] = ()
    """Its answers, the least probable first; masses sum to 1."""


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
    return _error(bins(probability_N, true_N, weight_N))


def _error(found: Sequence[Bin]) -> float:
    total = sum(one.mass for one in found)
    gaps = sum(abs(one.probability - one.share) * one.mass for one in found)
    return gaps / total if total > 0 else math.nan


def measure(practice: calibration.Rows, observed: calibration.Rows, fit: Fit) -> Reliability:
    """The calibration error of what `fit` makes of some rows, out of sample.

    Questions with a card weigh as much in total as those without. How many of either a router is
    asked, and how far they are from its cards, it can't know: where they differ, so does the error.

    Args:
        practice: fitted to beside what was observed; not asked.
        observed: of the cards.
        fit: fits a model to both.
    """
    numbers = np.unique(observed.questions_N)
    answers = list[_Answer]()
    for fold in range(_FOLDS):
        asked = numbers[fold::_FOLDS]
        seen = [practice, observed.asked(np.setdiff1d(numbers, asked))]
        if not _both(seen):
            return UNKNOWN
        answers += _answers(observed.asked(asked), fit(seen))
    masses = [sum(one.weight for one in answers if one.known is known) for known in (True, False)]
    if min(masses) <= 0:
        return UNKNOWN
    found = bins(
        [one.probability for one in answers],
        [one.right for one in answers],
        # Those with a card and those without have one half each.
        [one.weight / masses[0 if one.known else 1] / 2 for one in answers],
    )
    return Reliability(_error(found), len(answers), tuple(found))


@dataclasses.dataclass(frozen=True)
class _Answer:
    probability: float
    """Of the first card."""
    right: bool
    known: bool
    """Whether the question has a card."""
    weight: float


def _answers(rows: calibration.Rows, model: calibration.Model) -> list[_Answer]:
    """What a model says to each question of some rows."""
    found = []
    for number in np.unique(rows.questions_N):
        at_N = rows.questions_N == number
        own_F = rows.features_N_F[at_N & (rows.labels_N > 0)]
        if len(own_F):
            rivals_M = rows.contrasts.questions_M == number
            strangers_S_F = own_F[0] - rows.contrasts.differences_M_F[rivals_M]
        else:
            strangers_S_F = rows.features_N_F[at_N]
        first, probability = _decided(model, np.concatenate([own_F, strangers_S_F]))
        known = len(own_F) > 0
        weight = float(rows.weights_N[at_N].max())
        found.append(_Answer(probability, known and first == 0, known, weight))
    return found


def _decided(model: calibration.Model, rows_K_F: Numbers) -> tuple[int, float]:
    """The first card's row and its probability, as the router decides."""
    ranks_K = rows_K_F @ model.ranking_F
    first = int(ranks_K.argmax())
    confidence = calibration.sigmoid(rows_K_F[first] @ model.weights_F + model.bias)
    return first, float(confidence / np.exp(ranks_K - ranks_K[first]).sum())


def _both(parts: Sequence[calibration.Rows]) -> bool:
    """Whether there are both labels to fit to."""
    return len(np.unique(np.concatenate([part.labels_N for part in parts]))) > 1
