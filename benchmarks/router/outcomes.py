"""What a router said to a trial's questions, and the figures that follow from it.

Numbers only: knows nothing about routers or where the questions come from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.router import intents
from services.router import reliability

Numbers = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
_RECALL = 0.95


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Answers in the order of `Trial.asked`."""

    inside_N: Flags
    """Whether there is a card for the question."""
    right_N: Flags
    """Whether the first card is the question's."""
    score_N: Numbers
    """The higher, the surer that any card fits."""

    @property
    def accuracy(self) -> float:
        """Share of the questions with a card that get it."""
        return float(self.right_N[self.inside_N].mean())

    @property
    def auroc(self) -> float:
        """Probability that a question with a card scores above one without; ties count half."""
        _, places, counts = np.unique(self.score_N, return_inverse=True, return_counts=True)
        ranks = np.cumsum(counts) - (counts - 1) / 2
        inside, outside = int(self.inside_N.sum()), int((~self.inside_N).sum())
        total = float(ranks[places][self.inside_N].sum())
        return (total - inside * (inside + 1) / 2) / (inside * outside)

    @property
    def fpr95(self) -> float:
        """Share of the questions without a card that pass where 95 % of those with one do."""
        passing = np.sort(self.score_N[self.inside_N])[::-1]
        limit = passing[int(np.ceil(_RECALL * len(passing))) - 1]
        return float((self.score_N[~self.inside_N] >= limit).mean())

    def curve(self) -> tuple[Numbers, Numbers]:
        """False and true positive rates, from the strictest threshold to none."""
        order = np.argsort(-self.score_N, kind="stable")
        inside, score = self.inside_N[order], self.score_N[order]
        ends = np.flatnonzero(np.append(np.diff(score) != 0, True))  # Equal scores pass together.
        true = np.cumsum(inside)[ends] / inside.sum()
        false = np.cumsum(~inside)[ends] / (~inside).sum()
        return np.insert(false, 0, 0.0), np.insert(true, 0, 0.0)


@dataclasses.dataclass(frozen=True)
class Routed(Outcome):
    """The same with what the production router alone tells."""

    probability_N: Numbers
    """Of the first card."""
    refused_N: Flags
    """Whether the decision was that none fits."""

    @property
    def in_scope_recall(self) -> float:
        """Share of the questions with a card that are not refused."""
        return float((~self.refused_N[self.inside_N]).mean())

    @property
    def out_scope_recall(self) -> float:
        """Share of the questions without a card that are."""
        return float(self.refused_N[~self.inside_N].mean())

    def bins(self) -> list[reliability.Bin]:
        """Mean probability and share right in 15 bins of equal mass."""
        return reliability.bins(self.probability_N, self.right_N)

    @property
    def ece(self) -> float:
        """Expected calibration error over all questions."""
        return reliability.calibration_error(self.probability_N, self.right_N)


def outcome(trial: intents.Trial, first: Sequence[str], score: Sequence[float]) -> Outcome:
    """From the first card (or "") and the score of each question."""
    return Outcome(_inside(trial), _right(trial, first), np.asarray(score, dtype=np.float64))


def routed(
    trial: intents.Trial,
    first: Sequence[str],
    score: Sequence[float],
    probability: Sequence[float],
    refused: Sequence[bool],
) -> Routed:
    """The same with the probability of the first card, and whether the decision was none."""
    return Routed(
        _inside(trial),
        _right(trial, first),
        np.asarray(score, dtype=np.float64),
        np.asarray(probability, dtype=np.float64),
        np.asarray(refused, dtype=np.bool_),
    )


def _inside(trial: intents.Trial) -> Flags:
    return np.arange(len(trial.asked)) < len(trial.inside)


def _right(trial: intents.Trial, first: Sequence[str]) -> Flags:
    wanted = [card for _, card in trial.inside]
    right = [card == own for card, own in zip(first, wanted, strict=False)]
    return np.array(right + [False] * len(trial.outside), dtype=np.bool_)
