"""A space in which questions of one card lie close: what embedders see that cards do not is shrunk.

Two-covariance model (probabilistic linear discriminant analysis; Ioffe, ECCV 2006; Brümmer and de
Villiers, Odyssey 2010): a card is drawn from N(0, B), its questions from N(card, W). W and B come
from the cards' own examples and, where these are few, from practice. Directions in which cards
differ more than their questions do count most. Knows nothing about words or probabilities.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from services.router import profile as profiles

Matrix = npt.NDArray[np.float64]
_SHRINKAGE = 0.5
"""Of W towards a sphere."""
_PRACTICE_QUESTIONS, _PRACTICE_CARDS = 300.0, 30.0
"""As how many questions, and cards, practice counts beside those of the store."""
_LEAST_BETWEEN = 1e-2
"""Axes along which cards differ less than this, next to what their questions do, are left out."""
_LEAST_VARIANCE = 1e-6


@dataclasses.dataclass(frozen=True)
class Sums:
    """What W and B are made of."""

    within_D_D: Matrix
    """Sum over questions of the outer product of their deviation from their card's mean."""
    freedom: float
    """Questions less cards."""
    means_C_D: Matrix
    counts_C: Matrix
    """Questions of each card."""


@dataclasses.dataclass(frozen=True)
class Space:
    """Questions are projected to where W is the unit matrix and B diagonal.

    Each axis counts by B / (B + W): the share of a card in what two of its questions have there.
    """

    mean_D: Matrix
    projection_D_A: Matrix
    """Onto the axes that count, each times the root of what it counts."""

    def directions(self, vectors_N_D: profiles.Vectors) -> profiles.Vectors:
        """Unit vectors whose cosine says how alike two questions are, whoever asks them.

        Shape (questions, axes) or (axes,).

        Args:
            vectors_N_D: unit vectors of the embedder, shape (questions, dimension) or (dimension,).
        """
        points_N_D = (np.asarray(vectors_N_D, dtype=np.float64) - self.mean_D) @ self.projection_D_A
        lengths = np.maximum(np.linalg.norm(points_N_D, axis=-1, keepdims=True), 1e-12)
        directions_N_D: profiles.Vectors = (points_N_D / lengths).astype(np.float32)
        return directions_N_D


def sums(groups: Iterable[profiles.Vectors]) -> Sums:
    """Adds up the questions of some cards.

    Args:
        groups: each card's unit vectors, shape (questions, dimension), at least one.
    """
    found = [np.asarray(group, dtype=np.float64) for group in groups]
    means = np.stack([group.mean(axis=0) for group in found])
    deviations = np.concatenate([g - m for g, m in zip(found, means, strict=True)])
    counts = np.array([len(group) for group in found], dtype=np.float64)
    return Sums(deviations.T @ deviations, float(counts.sum() - len(found)), means, counts)


def fit(practice: Sums, cards: Sums | None = None) -> Space:
    """The space of some cards, which practice stands in for where they are few.

    Args:
        practice: of the practice cards.
        cards: of the active ones, if there are any.
    """
    weight = _PRACTICE_QUESTIONS / practice.freedom
    within, freedom = practice.within_D_D * weight, _PRACTICE_QUESTIONS
    spread, mean = _between(practice)
    if cards is not None:
        within, freedom = within + cards.within_D_D, freedom + cards.freedom
        own, own_mean = _between(cards)
        share = len(cards.means_C_D) / (len(cards.means_C_D) + _PRACTICE_CARDS)
        apart = own_mean - mean
        spread = share * own + (1 - share) * spread
        spread = spread + share * (1 - share) * np.outer(apart, apart)
        mean = share * own_mean + (1 - share) * mean
    w = within / freedom
    sphere = max(float(np.trace(w)) / len(w), _LEAST_VARIANCE)
    w = (1 - _SHRINKAGE) * w + _SHRINKAGE * sphere * np.eye(len(w))
    values, vectors = np.linalg.eigh(w)
    whitening = vectors * np.maximum(values, _LEAST_VARIANCE) ** -0.5
    sizes = practice.counts_C if cards is None else cards.counts_C
    # Means of few questions are spread by W as well.
    noise = float(np.mean(1.0 / sizes))
    between, turn = np.linalg.eigh(whitening.T @ spread @ whitening - noise * np.eye(len(w)))
    # The largest comes last; where nothing tells cards apart it stands in for all.
    kept = (between > _LEAST_BETWEEN) | (np.arange(len(between)) == len(between) - 1)
    between = np.maximum(between[kept], _LEAST_BETWEEN)
    return Space(mean, whitening @ turn[:, kept] * np.sqrt(between / (1.0 + between)))


def _between(found: Sums) -> tuple[Matrix, Matrix]:
    mean = found.means_C_D.mean(axis=0)
    apart = found.means_C_D - mean
    return apart.T @ apart / len(apart), mean
