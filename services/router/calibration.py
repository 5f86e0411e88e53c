"""From evidence to probabilities: does this card fit, and does none fit?

Logistic models over the features of one question against one card, fitted by Newton's method with
a ridge (penalised maximum likelihood; Hosmer & Lemeshow, Applied Logistic Regression, ch. 1) to the
rows that `observation` gathers. Knows nothing about embedding, threads or thresholds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from services.router import index as indexes

Matrix = npt.NDArray[np.float64]
FEATURES = (
    "nearest", "remoteness", "kin", "boundary", "lexical", "said", "anchor", "shared", "foreign",
    "misnamed", "unexplained",
)  # fmt: skip
"""Fields of `Evidence`; the square of the anchor comes as one feature more, because half a name
(the Tarn Holm for the Skarn Holm Lighthouse) is worth far less than half of the whole name."""
COLUMNS = (*FEATURES, "anchor squared")
"""Of `features`."""
SIGNS = tuple(
    -1.0 if name in ("remoteness", "foreign", "misnamed", "unexplained") else 1.0
    for name in COLUMNS
)
"""Whether a card fits better or worse the more there is of a feature."""
_RIDGE = 1.0
_VERBATIM_LOGIT = 4.0
_NEWTON_STEPS = 12
_PRACTICE_ROWS = 300.0
"""The active cards count as much as all practice once they have so many rows."""
_REFUSED_SHARE, _REFUSED_BELOW = 0.85, 0.4
"""Odds that a question has a card are raised only while so large a share of those without one stays
below the router's usual threshold."""
_MOST_ODDS, _QUESTIONS_FOR_ODDS = 3.0, 300.0
"""Most questions have a card where cards have grown to what is asked; how many is not known."""


@dataclasses.dataclass(frozen=True)
class Contrasts:
    """What right cards have more than wrong ones for the same question."""

    differences_M_F: Matrix
    weights_M: Matrix
    """The same for all of a question."""
    questions_M: npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Rows:
    """Labelled evidence."""

    features_N_F: Matrix
    labels_N: Matrix
    """1 where the question belongs to the card, else 0."""
    weights_N: Matrix
    """How much each row counts."""
    questions_N: npt.NDArray[np.int64]
    """Number of the question that each row is of."""
    contrasts: Contrasts

    def scaled(self, factor: float) -> Rows:
        """The same rows, each counting so many times as much."""
        contrasts = dataclasses.replace(self.contrasts, weights_M=self.contrasts.weights_M * factor)
        return dataclasses.replace(self, weights_N=self.weights_N * factor, contrasts=contrasts)

    def without(self, feature: str) -> Rows:
        """The same rows, in which one feature says nothing."""
        says_F = np.array([name != feature for name in COLUMNS])
        differences_M_F = self.contrasts.differences_M_F * says_F
        contrasts = dataclasses.replace(self.contrasts, differences_M_F=differences_M_F)
        return dataclasses.replace(
            self, features_N_F=self.features_N_F * says_F, contrasts=contrasts
        )

    def asked(self, numbers: npt.NDArray[np.int64]) -> Rows:
        """The rows of some questions alone."""
        kept_N = np.isin(self.questions_N, numbers)
        kept_M = np.isin(self.contrasts.questions_M, numbers)
        return Rows(
            self.features_N_F[kept_N],
            self.labels_N[kept_N],
            self.weights_N[kept_N],
            self.questions_N[kept_N],
            Contrasts(
                self.contrasts.differences_M_F[kept_M],
                self.contrasts.weights_M[kept_M],
                self.contrasts.questions_M[kept_M],
            ),
        )

    def decisive(self, ranking_F: Matrix) -> npt.NDArray[np.bool_]:
        """Which rows decide: all that are right, and of the wrong ones each question's best.

        Only the best card is ever asked whether it fits.
        """
        order = np.lexsort((self.features_N_F @ ranking_F, self.questions_N, self.labels_N))
        questions, labels = self.questions_N[order], self.labels_N[order]
        last = np.ones(len(order), dtype=np.bool_)
        last[:-1] = (np.diff(questions) != 0) | (np.diff(labels) != 0)
        chosen_N = self.labels_N > 0
        chosen_N[order[last]] = True
        return chosen_N


@dataclasses.dataclass(frozen=True)
class Model:
    """Two logistic models: whether a card fits, and which one of those that do."""

    weights_F: Matrix
    bias: float
    ranking_F: Matrix
    """What makes one card fit better than another (conditional logit; McFadden, 1974)."""

    def logits(self, evidence: indexes.Evidence) -> Matrix:
        """Log odds that each card fits, shape (cards,)."""
        fitted = features(evidence) @ self.weights_F + self.bias
        # The rows are of questions that no card has among its examples, and so say nothing about
        # the very questions that a card was made for.
        return np.where(evidence.verbatim > 0, np.maximum(fitted, _VERBATIM_LOGIT), fitted)

    def ranks(self, evidence: indexes.Evidence) -> Matrix:
        """Log odds of each card against each other one, up to a common constant, (cards,)."""
        ranks: Matrix = features(evidence) @ self.ranking_F
        # A card that was made for this very question comes before all that were not.
        return ranks + (np.ptp(ranks) + _VERBATIM_LOGIT) * evidence.verbatim


def features(evidence: indexes.Evidence) -> Matrix:
    """The evidence as a matrix of shape (cards, features)."""
    columns = [getattr(evidence, name) for name in FEATURES]
    return np.stack([*columns, evidence.anchor**2], axis=1)


def fit(
    parts: Sequence[Rows],
    signs_F: Sequence[float] = (),
    sharpening: float = 1.0,
    most_odds: float = 1.0,
) -> Model:
    """Fits the models; positives and negatives weigh the same in total.

    The odds that a question has a card are then raised as far as those without one stay refused:
    a classifier at a bounded share of false positives (Neyman and Pearson, 1933).

    Args:
        parts: rows with at least one positive and one negative among them, and one contrast.
        signs_F: of each feature's weight, 1 or -1; one that would come out the other way is left
            out, the worst first. A question that is more alike is never less likely then, however
            much two features tell the same. By default any weight may have any sign.
        sharpening: how many times as well an index tells cards apart as those that made the rows.
            All log odds are multiplied by it.
        most_odds: that a question has a card, 1 or more, before any evidence.
    """
    ranking_F = _ranking([part.contrasts for part in parts], signs_F)
    decisive = [part.decisive(ranking_F) for part in parts]
    x_N_F = np.concatenate([p.features_N_F[d] for p, d in zip(parts, decisive, strict=True)])
    y_N = np.concatenate([p.labels_N[d] for p, d in zip(parts, decisive, strict=True)])
    weight_N = np.concatenate([p.weights_N[d] for p, d in zip(parts, decisive, strict=True)])
    weights_F, bias = _signed(
        lambda kept_F: _logistic(x_N_F[:, kept_F], y_N, weight_N), x_N_F.std(axis=0), signs_F
    )
    weights_F, bias = sharpening * weights_F, sharpening * bias
    unknown_N = y_N == 0
    generous = _generosity(x_N_F[unknown_N] @ weights_F + bias, weight_N[unknown_N])
    bias += min(generous, float(np.log(most_odds)))
    return Model(weights_F, bias, sharpening * ranking_F)


def _generosity(logits_N: Matrix, weight_N: Matrix) -> float:
    """Log odds, 0 or more, that a question has a card, beyond what the evidence says.

    Args:
        logits_N: of questions without one.
        weight_N: of each.
    """
    order = np.argsort(logits_N)
    reached_N = np.cumsum(weight_N[order])
    at = int(np.searchsorted(reached_N, _REFUSED_SHARE * reached_N[-1]))
    refused = np.log(_REFUSED_BELOW / (1.0 - _REFUSED_BELOW))
    return max(float(refused - logits_N[order[at]]), 0.0)


def together(practice: Rows, observed: Rows) -> list[Rows]:
    """Practice beside what was observed, the less of it the more there is of that."""
    weight = 1.0 / (1.0 + observed.weights_N.sum() / _PRACTICE_ROWS)
    return [practice.scaled(weight), observed]


def most_odds(observed: Rows) -> float:
    """How likely at most it is taken to be that a question has a card, before any evidence.

    A few cards say nothing about what will be asked.
    """
    known = float(observed.labels_N.sum())
    return float(_MOST_ODDS ** (known / (known + _QUESTIONS_FOR_ODDS)))


def sigmoid(x: Matrix) -> Matrix:
    """1 / (1 + exp(-x)) without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(x, dtype=np.float64)))


def _ranking(parts: Sequence[Contrasts], signs_F: Sequence[float]) -> Matrix:
    """The right card against all wrong ones together (conditional logit; McFadden, 1974)."""
    differences_M_F = np.concatenate([part.differences_M_F for part in parts])
    weight_M = np.concatenate([part.weights_M for part in parts])
    # Questions of one part are others than those of the next.
    named = [(at, number) for at, part in enumerate(parts) for number in part.questions_M]
    _, group_M = np.unique(np.array(named).reshape(-1, 2), axis=0, return_inverse=True)

    def fitted(kept_F: npt.NDArray[np.bool_]) -> tuple[Matrix, float]:
        return _conditional(differences_M_F[:, kept_F], weight_M, group_M.ravel()), 0.0

    return _signed(fitted, np.abs(differences_M_F).mean(axis=0), signs_F)[0]


def _conditional(
    differences_M_F: Matrix, weight_M: Matrix, group_M: npt.NDArray[np.int64]
) -> Matrix:
    """Weights that make the right card of each group likeliest."""
    scale_F = np.maximum(np.sqrt((differences_M_F**2).mean(axis=0)), 1e-6)
    d_M_F = differences_M_F / scale_F
    groups = int(group_M.max()) + 1
    starts_G = np.searchsorted(group_M, np.arange(groups))
    beta = np.zeros(d_M_F.shape[1])
    for _ in range(_NEWTON_STEPS):
        behind_M = -d_M_F @ beta
        shift_G = np.maximum(np.maximum.reduceat(behind_M, starts_G), 0.0)
        odds_M = np.exp(behind_M - shift_G[group_M])
        total_G = np.exp(-shift_G) + np.add.reduceat(odds_M, starts_G)
        p_M = odds_M / total_G[group_M]
        drawn_G_F = np.add.reduceat(p_M[:, None] * d_M_F, starts_G)
        weight_G = weight_M[starts_G]
        gradient = weight_G @ drawn_G_F - _RIDGE * beta
        curvature = (d_M_F * (weight_M * p_M)[:, None]).T @ d_M_F
        curvature -= (drawn_G_F * weight_G[:, None]).T @ drawn_G_F
        curvature[np.diag_indices_from(curvature)] += _RIDGE
        beta = beta + np.linalg.solve(curvature, gradient)
    weights_F: Matrix = beta / scale_F
    return weights_F


def _signed(
    fitted: Callable[[npt.NDArray[np.bool_]], tuple[Matrix, float]],
    spread_F: Matrix,
    signs_F: Sequence[float],
) -> tuple[Matrix, float]:
    """Weights and bias whose signs are as they should be.

    Args:
        fitted: weights and bias for some of the features.
        spread_F: of each feature.
        signs_F: of its weight; none: any.
    """
    kept_F = np.ones(len(spread_F), dtype=np.bool_)
    while True:
        weights_F = np.zeros(len(spread_F))
        weights_F[kept_F], bias = fitted(kept_F)
        effects_F = weights_F * spread_F * np.asarray(signs_F) if len(signs_F) else spread_F
        if not np.isfinite(effects_F).all():  # Leaving features out would not end.
            raise FloatingPointError("the evidence of the calibration has NaN or infinite values")
        if effects_F.min() >= 0:
            return weights_F, bias
        kept_F[int(effects_F.argmin())] = False


def _logistic(x_N_F: Matrix, y_N: Matrix, weight_N: Matrix) -> tuple[Matrix, float]:
    centre, scale = x_N_F.mean(axis=0), np.maximum(x_N_F.std(axis=0), 1e-6)
    z = np.hstack([(x_N_F - centre) / scale, np.ones((len(x_N_F), 1))])
    totals = np.where(y_N > 0, (weight_N * y_N).sum(), (weight_N * (1 - y_N)).sum())
    weight_N = weight_N / totals * (0.5 * len(y_N))
    penalty = np.diag([_RIDGE] * x_N_F.shape[1] + [1e-6])
    beta = np.zeros(z.shape[1])
    for _ in range(_NEWTON_STEPS):
        p = sigmoid(z @ beta)
        gradient = z.T @ (weight_N * (y_N - p)) - penalty @ beta
        curvature = (z * (weight_N * np.maximum(p * (1 - p), 1e-6))[:, None]).T @ z + penalty
        beta = beta + np.linalg.solve(curvature, gradient)
    weights = beta[:-1] / scale
    return weights, float(beta[-1] - centre @ weights)
