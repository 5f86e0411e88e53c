"""From evidence to probabilities: does this card fit, and does none fit?

A logistic model over the features of one question against one card, fitted by Newton's method with
a ridge (penalised maximum likelihood; Hosmer & Lemeshow, Applied Logistic Regression, ch. 1).
It learns from the practice of `background`, which is always there, and from the active cards:
their own examples, each scored without itself, against everything that does not belong to them.
Knows nothing about embedding, threads or thresholds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from services.router import index as indexes
from services.router import profile as profiles
from services.router import space as spaces

Matrix = npt.NDArray[np.float64]
_Row = tuple[Matrix, float, float]
"""Features, label and weight."""
FEATURES = (
    "nearest", "nearest_three", "centroid", "remoteness", "likelihood", "kin", "lexical", "said",
    "anchor", "shared", "foreign", "misnamed", "unexplained",
)  # fmt: skip
"""Fields of `Evidence`; the square of the anchor comes as one feature more, because half a name
(the Tarn Holm for the Skarn Holm Lighthouse) is worth far less than half of the whole name."""
SIGNS = tuple(
    -1.0 if name in ("remoteness", "foreign", "misnamed", "unexplained") else 1.0
    for name in (*FEATURES, "anchor squared")
)
"""Whether a card fits better or worse the more there is of a feature."""
_RIDGE = 1.0
_VERBATIM_LOGIT = 4.0
_NEWTON_STEPS = 12
_UNTOLD_WEIGHT = 0.5
"""A question about the right thing that the card has no answer to is only half a stranger: from a
new wording of a fact that the card has, vectors and words hardly tell it apart."""
_NAMELESS_WEIGHT = 0.5
"""Most questions name what they are about."""
_ROWS_OF_ONE_CARD = 12
_ROWS_OF_ALL_CARDS = 900
_PRACTICE_ROWS = 300.0
"""The active cards count as much as all practice once they have so many rows."""
_SAME_SUBJECT_ANCHOR = 0.6
_SAME_QUESTION_COSINE = 0.9


@dataclasses.dataclass(frozen=True)
class Rows:
    """Labelled evidence."""

    features_N_F: Matrix
    labels_N: Matrix
    """1 where the question belongs to the card, else 0."""
    weights_N: Matrix
    """How much each row counts."""
    contrasts: Rows | None = None
    """What the right card has more than a wrong one for the same question, labelled 1, and the
    reverse, labelled 0."""

    def scaled(self, factor: float) -> Rows:
        """The same rows, each counting so many times as much."""
        contrasts = None if self.contrasts is None else self.contrasts.scaled(factor)
        weights = self.weights_N * factor
        return dataclasses.replace(self, weights_N=weights, contrasts=contrasts)


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
        # Practice leaves every question out of the examples it is compared with, and so says
        # nothing about the very questions that a card was made for.
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


def fit(parts: Sequence[Rows], signs_F: Sequence[float] = ()) -> Model:
    """Fits the models; positives and negatives weigh the same in total.

    Args:
        parts: rows with at least one positive and one negative among them.
        signs_F: of each feature's weight, 1 or -1; one that would come out the other way is left
            out, the worst first. A question that is more alike is never less likely then, however
            much two features tell the same. By default any weight may have any sign.
    """
    weights_F, bias = _signed(parts, signs_F)
    contrasts = [part.contrasts for part in parts if part.contrasts is not None]
    ranking_F = _signed(contrasts, signs_F)[0] if contrasts else weights_F
    return Model(weights_F, bias, ranking_F)


def _signed(parts: Sequence[Rows], signs_F: Sequence[float]) -> tuple[Matrix, float]:
    """Weights and bias whose signs are as they should be."""
    spread = np.concatenate([part.features_N_F for part in parts]).std(axis=0)
    kept = np.ones(len(spread), dtype=bool)
    while True:
        some = [dataclasses.replace(p, features_N_F=p.features_N_F[:, kept]) for p in parts]
        weights_F = np.zeros(len(spread))
        weights_F[kept], bias = _fit(some)
        effects = weights_F * spread * np.asarray(signs_F) if len(signs_F) else spread
        if effects.min() >= 0:
            return weights_F, bias
        kept[int(effects.argmin())] = False


def _fit(parts: Sequence[Rows]) -> tuple[Matrix, float]:
    x_N_F = np.concatenate([part.features_N_F for part in parts])
    y_N = np.concatenate([part.labels_N for part in parts])
    weight_N = np.concatenate([part.weights_N for part in parts])
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


def together(practice: Rows, observed: Rows) -> list[Rows]:
    """Practice beside what was observed, the less of it the more there is of that."""
    weight = 1.0 / (1.0 + observed.weights_N.sum() / _PRACTICE_ROWS)
    return [practice.scaled(weight), observed]


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


def practise(
    cards: Sequence[profiles.Profile],
    askers: Sequence[Askers],
    unrelated: Sequence[profiles.Question],
    space: spaces.Space | None = None,
) -> Rows:
    """Rows from made-up cards: each one's held-out questions, and the hardest strangers.

    Args:
        cards: practice cards.
        askers: of each card, questions that are not among its examples.
        unrelated: questions that belong to none.
        space: of the practice cards.
    """
    index = indexes.Index(cards, space)
    place = {profile.identity: at for at, profile in enumerate(index.profiles)}
    found: list[_Row] = []
    contrasts: list[Matrix] = []
    for card, asked in zip(cards, askers, strict=True):
        own = place[card.identity]
        for question in asked.nameless:
            found.append((features(index.search(question))[own], 1.0, _NAMELESS_WEIGHT))
        for question in asked.belonging:
            rows = features(index.search(question))
            strangers = _hardest(np.delete(rows, own, axis=0))
            found.append((rows[own], 1.0, 1.0))
            found += [(row, 0.0, 1.0) for row in strangers]
            contrasts += [rows[own] - row for row in strangers]
        for question in asked.namesakes:
            found += [(row, 0.0, 1.0) for row in _hardest(features(index.search(question)))]
        for question in asked.untold:
            found.append((features(index.search(question))[own], 0.0, _UNTOLD_WEIGHT))
    for question in unrelated:
        found += [(row, 0.0, 1.0) for row in _hardest(features(index.search(question)))]
    return _rows(found, contrasts)


def observe(index: indexes.Index, unrelated: Sequence[profiles.Question]) -> Rows:
    """Rows from the active cards: their examples without themselves, and the hardest strangers.

    A question of one card that is about the same subject as another card, or nearly the same
    question, says nothing about either: such pairs are left out, so cards that overlap do not
    teach the model to doubt itself.
    """
    found: list[_Row] = []
    contrasts: list[Matrix] = []
    cards = len(index)
    each = max(1, min(_ROWS_OF_ONE_CARD, _ROWS_OF_ALL_CARDS // max(cards, 1)))
    chosen = range(0, cards, max(1, cards // _ROWS_OF_ALL_CARDS))
    for at in chosen:
        card = index.profiles[at]
        for number in range(0, len(card.examples), max(1, len(card.examples) // each)):
            question = card.examples[number]
            evidence = index.search(question)
            stranger = (evidence.anchor < _SAME_SUBJECT_ANCHOR) & (
                evidence.nearest < _SAME_QUESTION_COSINE
            )
            stranger[at] = False
            strangers = _hardest(features(evidence)[stranger])
            found += [(row, 0.0, 1.0) for row in strangers]
            rest = [*card.examples[:number], *card.examples[number + 1 :]]
            if rest:
                left = profiles.build(card.card, rest, card.statements)
                alone = indexes.Index([left], index.space, among=index)
                row_F = features(alone.search(question))[0]
                found.append((row_F, 1.0, 1.0))
                contrasts += [row_F - row for row in strangers]
    if cards:
        for question in unrelated[:: max(1, len(unrelated) // _ROWS_OF_ALL_CARDS)]:
            found += [(row, 0.0, 1.0) for row in _hardest(features(index.search(question)))]
    return _rows(found, contrasts)


def sigmoid(x: Matrix) -> Matrix:
    """1 / (1 + exp(-x)) without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(x, dtype=np.float64)))


def _hardest(rows_C_F: Matrix) -> Matrix:
    """The rows that look most like a match by one kind of likeness or another.

    Shape (0 to 3, features). Those of one kind alone would make that kind look misleading.
    """
    if not len(rows_C_F):
        return rows_C_F
    column = dict(zip(FEATURES, rows_C_F.T, strict=False))
    kinds = (column["nearest"] + column["anchor"], column["likelihood"], column["kin"])
    return rows_C_F[sorted({int(likeness.argmax()) for likeness in kinds})]


def _rows(found: Sequence[_Row], contrasts: Sequence[Matrix]) -> Rows:
    if not found:
        return Rows(np.zeros((0, len(FEATURES) + 1)), np.zeros(0), np.zeros(0))
    both = [(row, 1.0, 1.0) for row in contrasts] + [(-row, 0.0, 1.0) for row in contrasts]
    return Rows(
        np.stack([row for row, _, _ in found]),
        np.array([label for _, label, _ in found]),
        np.array([weight for _, _, weight in found]),
        _rows(both, ()) if both else None,
    )
