"""Which of a card's facts a question asks for, however it is worded.

The nearest example often shares the question's words and not what it asks. What tells the facts of
a card apart is learned from all its examples at once: ridge regression on the fact as one of n
(kernel form; Hastie, Tibshirani and Friedman, ch. 5.8). Knows nothing about other cards.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
_RIDGE = 0.3


class Reader:
    """Tells what one card's facts are asked by, with one vector a fact."""

    def __init__(self, examples_E_D: Vectors, facts_E: Sequence[int]) -> None:
        """Learns to tell facts apart.

        Args:
            examples_E_D: unit vectors, at least one.
            facts_E: number of the fact that each example asks for.
        """
        self._facts_F, fact_E = np.unique(np.asarray(facts_E), return_inverse=True)
        self._mean_D = examples_E_D.mean(axis=0)
        centred_E_D = (examples_E_D - self._mean_D).astype(np.float64)
        wanted_E_F = np.eye(len(self._facts_F))[fact_E] - 1.0 / len(self._facts_F)
        kernel_E_E = centred_E_D @ centred_E_D.T
        kernel_E_E[np.diag_indices_from(kernel_E_E)] += _RIDGE
        weights_D_F = centred_E_D.T @ np.linalg.solve(kernel_E_E, wanted_E_F)
        self._weights_D_F = weights_D_F.astype(np.float32)

    def fact(self, vector_D: Vectors) -> int:
        """The number of the fact that a question most probably asks for."""
        scores_F = (vector_D - self._mean_D) @ self._weights_D_F
        return int(self._facts_F[np.argmax(scores_F)])
