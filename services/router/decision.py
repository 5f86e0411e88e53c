"""What the router says to a question: the cards that may fit, and how sure it is that any does.

Turns evidence into shares of one probability. Knows nothing about how evidence or models are made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import numpy as np

from services.router import calibration
from services.router import index as indexes
from services.router import profile as profiles


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One card that may fit."""

    card: str
    """`name@digest`."""
    probability: float
    """Calibrated; those of all cards and the probability of none sum to 1."""
    similarity: float
    """Cosine to the nearest example question."""
    nearest_example: str
    """Empty for a card that is known by its description alone."""
    reading: str = ""
    """The example that asks the same in other words; of the first candidate alone, and empty where
    the card does not tell which of its examples ask the same."""

    @property
    def read_as(self) -> str:
        """The example as which a question is read: the one that asks the same, else the nearest."""
        return self.reading or self.nearest_example


@dataclasses.dataclass(frozen=True)
class Decision:
    """The answer to one question."""

    query: str
    candidates: tuple[Candidate, ...]
    """Best first."""
    none_probability: float
    confidence: float
    """1 - none_probability; from the best evidence, so that twins do not split it."""
    threshold: float
    dissonance: bool
    """Whether the confidence lies below the threshold."""
    hidden_confidence: float = 0.0
    """What the confidence were if the asker might see all cards; 0 where it may."""


def decide(
    question: profiles.Question,
    index: indexes.Index,
    evidence: indexes.Evidence,
    model: calibration.Model,
    top_k: int,
    threshold: float,
    hidden: Collection[str] = (),
) -> Decision:
    """Ranks the cards of an index for a question.

    Args:
        question: what was asked.
        index: the cards that it was compared with.
        evidence: how it relates to each of them.
        model: the calibration.
        top_k: how many candidates to return.
        threshold: 0 to 1.
        hidden: cards (`name@digest`) that are none to the asker.
    """
    candidates, confidence, most = _share(question, index, evidence, model, top_k, hidden)
    if not question.words:  # "?!" asks for nothing that a card could say.
        candidates, confidence, most = (), 0.0, 0.0
    return Decision(
        query=question.text,
        candidates=candidates,
        none_probability=1.0 - confidence,
        confidence=confidence,
        threshold=threshold,
        dissonance=confidence < threshold,
        hidden_confidence=most if hidden else 0.0,
    )


def candidate(
    question: profiles.Question,
    index: indexes.Index,
    evidence: indexes.Evidence,
    at: int,
    is_read: bool = True,
) -> Candidate:
    """One card of an index as a question meets it, whatever its probability (told as 0).

    Args:
        question: what was asked.
        index: the cards that it was compared with.
        evidence: how it relates to each of them.
        at: the card's place among them.
        is_read: whether to find the example that asks the same.
    """
    found = index.profiles[at]
    nearest = found.examples[int(evidence.nearest_example[at])].text
    read = found.read(question) if is_read else ""
    return Candidate(
        card=found.identity,
        probability=0.0,
        similarity=float(evidence.nearest[at]),
        nearest_example="" if found.card.stand_in else nearest,
        reading=nearest if read and evidence.verbatim[at] > 0 else read,
    )


def _share(
    question: profiles.Question,
    index: indexes.Index,
    evidence: indexes.Evidence,
    model: calibration.Model,
    top_k: int,
    hidden: Collection[str],
) -> tuple[tuple[Candidate, ...], float, float]:
    """The best candidates, the confidence that their probabilities share, and that of all cards."""
    if not len(index):
        return (), 0.0, 0.0
    ranks_C = model.ranks(evidence)
    fits_C = calibration.sigmoid(model.logits(evidence))
    most = float(fits_C[ranks_C.argmax()])
    seen = len(index)
    if hidden:
        hidden_C = np.array([one.identity in hidden for one in index.profiles])
        ranks_C = np.where(hidden_C, -np.inf, ranks_C)
        seen -= int(hidden_C.sum())
        if not seen:
            return (), 0.0, most
    shares_C = np.exp(ranks_C - ranks_C.max())
    best = np.argsort(-ranks_C, kind="stable")[: min(top_k, seen)]
    confidence = float(fits_C[best[0]])
    probabilities_C = confidence * shares_C / shares_C.sum()
    candidates = list[Candidate]()
    for at in best:
        one = candidate(question, index, evidence, int(at), is_read=not candidates)
        candidates.append(dataclasses.replace(one, probability=float(probabilities_C[at])))
    return tuple(candidates), confidence, most
