"""A linear boundary round each card: what tells its questions from those of the cards next to it.

Least squares classifiers (ridge regression on the labels 1 and -1, both classes weighing the same;
Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, ch. 4.2), each against the
nearest cards alone, so that there may be more cards than dimensions. Knows nothing about words or
probabilities.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Directions = npt.NDArray[np.float32]
Boundary = tuple[Directions, float]
"""Weights and offset."""
_RIVALS = 20
_RIDGE = 1e-3
"""For a hundred examples; the fewer there are, the more."""
_TRUSTED_EXAMPLES = 20
"""As many say half of what endlessly many would."""
_KEPT_SCATTERS = 256
"""Of 0.6 MiB with 384 dimensions, while boundaries are fitted."""


class Discriminants:
    """One boundary for each card."""

    def __init__(
        self,
        directions_R_D: Directions,
        counts_C: npt.NDArray[np.int64],
        drawn: Mapping[int, Boundary] | None = None,
    ) -> None:
        """Takes the examples of all cards, card by card.

        Args:
            directions_R_D: unit vectors.
            counts_C: of each card's examples, at least one.
            drawn: boundaries of some cards, by their place, that stay as they are.
        """
        cards, dimension = len(counts_C), directions_R_D.shape[1]
        self._weights_C_D = np.zeros((cards, dimension), dtype=np.float32)
        self._offset_C = np.zeros(cards)
        if cards < 2:
            return
        starts_C = np.concatenate([[0], np.cumsum(counts_C)])
        groups = [directions_R_D[a:b] for a, b in itertools.pairwise(starts_C)]
        sums_C_D = np.stack([group.sum(axis=0) for group in groups])
        lengths_C = np.linalg.norm(sums_C_D, axis=1, keepdims=True)
        alike_C_D = sums_C_D / np.maximum(lengths_C, 1e-6)

        @functools.lru_cache(_KEPT_SCATTERS)
        def scatter(card: int) -> Directions:
            product: Directions = groups[card].T @ groups[card]
            return product

        rivals = min(_RIVALS, cards - 1)
        for at, (former_D, offset) in (drawn or {}).items():
            self._weights_C_D[at], self._offset_C[at] = former_D, offset
        for at in sorted(set(range(cards)).difference(drawn or ())):
            alike_C = alike_C_D @ alike_C_D[at]
            alike_C[at] = -np.inf
            near = np.argpartition(-alike_C, rivals - 1)[:rivals]
            own, others = int(counts_C[at]), int(counts_C[near].sum())
            mean_D = 0.5 * (sums_C_D[at] / own + sums_C_D[near].sum(axis=0) / others)
            strength = _RIDGE * float(np.sqrt(100.0 / own))
            if own + others < dimension:
                rival_R_D = np.concatenate([groups[card] for card in near])
                weights_D = _from_examples(groups[at] - mean_D, rival_R_D - mean_D, strength)
            else:
                spread_D_D = (0.5 / own) * scatter(at).astype(np.float64) - np.outer(mean_D, mean_D)
                for card in near:
                    spread_D_D += (0.5 / others) * scatter(int(card))
                weights_D = _from_spread(spread_D_D, sums_C_D[at] / own - mean_D, strength)
            trust = own / (own + _TRUSTED_EXAMPLES)
            self._weights_C_D[at] = trust * weights_D
            self._offset_C[at] = -trust * float(mean_D @ weights_D)

    def boundary(self, at: int) -> Boundary:
        """That of the card at some place."""
        return self._weights_C_D[at], float(self._offset_C[at])

    def of(self, direction_D: Directions) -> npt.NDArray[np.float64]:
        """How far one question lies within each card's boundary, shape (cards,).

        1 is as far as the card's own examples, less so the fewer these are; negative is outside.
        """
        inside_C: npt.NDArray[np.float64] = self._offset_C + self._weights_C_D @ direction_D
        return inside_C


def _from_spread(
    spread_D_D: npt.NDArray[np.float64], wanted_D: Directions, strength: float
) -> npt.NDArray[np.float64]:
    """The ridge solution from the examples' second moments: one equation for each dimension."""
    spread_D_D[np.diag_indices_from(spread_D_D)] += strength
    return np.linalg.solve(spread_D_D, wanted_D).astype(np.float64)


def _from_examples(
    own_R_D: Directions, rival_R_D: Directions, strength: float
) -> npt.NDArray[np.float64]:
    """The same from the examples themselves, where these are fewer: one equation for each."""
    shares = np.sqrt([0.5 / len(own_R_D), 0.5 / len(rival_R_D)])
    weighed_R_D = np.concatenate([own_R_D * shares[0], rival_R_D * shares[1]])
    labels_R = np.repeat(shares * [1.0, -1.0], [len(own_R_D), len(rival_R_D)])
    gram_R_R = weighed_R_D @ weighed_R_D.T
    gram_R_R[np.diag_indices_from(gram_R_R)] += strength
    weights_D: npt.NDArray[np.float64] = weighed_R_D.T @ np.linalg.solve(gram_R_R, labels_R)
    return weights_D
