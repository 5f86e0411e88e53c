"""How far the router's probabilities are from how often they come true, found out by itself.

Expected calibration error over bins of equal mass (Naeini, Cooper and Hauskrecht, AAAI 2015), out
of sample: models fitted without some of the cards are asked about those. Knows nothing about how
evidence comes about.
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
    """Questions put to a card that it stands on."""


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


def measure(parts: Sequence[calibration.Rows], fit: Fit) -> Reliability:
    """The calibration error of what `fit` makes of some rows, on rows that it did not see.

    Rows of one card stand together, so that folds of neighbours leave whole cards out. Positives
    and negatives weigh the same in total, as they do in the fit.

    Args:
        parts: what the router's own calibration is fitted to.
        fit: fits it.
    """
    folds = [_folds(part) for part in parts]
    said, true, weights = [], [], []
    for fold in range(_FOLDS):
        seen = [_only(p, f != fold) for p, f in zip(parts, folds, strict=True)]
        if not _both([part.labels_N for part in seen]):
            return UNKNOWN
        model = fit(seen)
        for part, places in zip(parts, folds, strict=True):
            asked = _only(part, places == fold)
            logits = asked.features_N_F @ model.weights_F + model.bias
            said.append(calibration.sigmoid(logits))
            true.append(asked.labels_N)
            weights.append(asked.weights_N)
    came = np.concatenate(true)
    balanced = _balanced(np.concatenate(weights), came)
    return Reliability(calibration_error(np.concatenate(said), came, balanced), len(came))


def _folds(part: calibration.Rows) -> npt.NDArray[np.int64]:
    """The number of each row's fold: neighbours of one label share one."""
    folds = np.zeros(len(part.labels_N), dtype=np.int64)
    for label in (0.0, 1.0):
        places = np.flatnonzero(part.labels_N == label)
        folds[places] = np.arange(len(places)) * _FOLDS // max(len(places), 1)
    return folds


def _only(part: calibration.Rows, kept_N: npt.NDArray[np.bool_]) -> calibration.Rows:
    # What tells cards apart says nothing about whether one fits; leaving it out saves a fit.
    return calibration.Rows(
        part.features_N_F[kept_N], part.labels_N[kept_N], part.weights_N[kept_N]
    )


def _both(labels: Sequence[Numbers]) -> bool:
    return len(labels) > 0 and len(np.unique(np.concatenate(labels))) > 1


def _balanced(weight_N: Numbers, true_N: Numbers) -> Numbers:
    totals = np.where(true_N > 0, weight_N[true_N > 0].sum(), weight_N[true_N <= 0].sum())
    balanced: Numbers = weight_N / np.maximum(totals, 1e-12)
    return balanced
