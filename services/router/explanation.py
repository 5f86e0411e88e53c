"""Why a question went to a card, or to none, and what would have changed that.

Takes a decision apart: nearest examples, what each piece of evidence adds to the log odds, and how
far the threshold and the second best card are. Decides nothing. Knows nothing about gRPC or
embedding, and of the evidence no more than the names of its columns.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Sequence

import numpy as np

from services.router import calibration, profile
from services.router import index as indexes

_EXAMPLES_SHOWN = 3
_LEAST_WEIGHT = 1e-9


class Reason(enum.Enum):
    """What a decision rests on."""

    FITS = "a card fits"
    TOO_UNSURE = "no card fits: the confidence is below the threshold"
    NO_CARDS = "no card fits: there are no cards that the asker may see"
    NO_WORDS = "no card fits: the question has no words"


@dataclasses.dataclass(frozen=True)
class Typical:
    """What the evidence of a calibration looks like; every array has shape (features,)."""

    mean_F: calibration.Matrix
    """Halfway between the mean question that fits its card and the mean one that does not."""
    spread_F: calibration.Matrix
    """Standard deviation."""
    least_F: calibration.Matrix
    most_F: calibration.Matrix


@dataclasses.dataclass(frozen=True)
class Contribution:
    """What one piece of evidence says."""

    feature: str
    value: float
    typical: float
    """The value that would say nothing."""
    log_odds: float
    """What it adds to the log odds that the card fits: weight times value less typical."""
    against_next: float | None
    """What it adds to the log odds of this card against the one behind it; None for the last."""
    flips_at: float | None
    """The value at which the card would fit, or no longer, all else the same; None where none
    is."""
    reachable: bool
    """Whether such a value was ever seen in the calibration."""


@dataclasses.dataclass(frozen=True)
class Example:
    """A question that a card was made for."""

    text: str
    cosine: float


@dataclasses.dataclass(frozen=True)
class Weighed:
    """One card as it was weighed: start, contributions and rest add up to its log odds."""

    card: str
    """`name@digest`."""
    probability: float
    """Calibrated; those of all cards and of none sum to 1."""
    fits: float
    """Probability that it fits, were it the only card that may."""
    log_odds: float
    """Of `fits`."""
    start: float
    """Log odds of a question about which nothing is out of the ordinary."""
    rest: float
    """What no feature explains: a question that is one of the card's examples is lifted."""
    is_example: bool
    """Whether the question is one of the card's examples, but for case and signs."""
    examples: tuple[Example, ...]
    """The nearest ones, nearest first."""
    stand_in: bool
    """Whether its description stands in for examples that nobody knows."""
    known_words: tuple[str, ...]
    """Those of the question that the card has, too, in their basic form."""
    foreign_words: tuple[str, ...]
    """The others; common ones, which weigh nothing, are left out."""
    contributions: tuple[Contribution, ...]
    """In the order of their weight for this decision, the heaviest first."""


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Why one question was decided as it was."""

    query: str
    reason: Reason
    cards: tuple[Weighed, ...]
    """Best first; empty without cards."""
    confidence: float
    none_probability: float
    threshold: float
    flips_above: float | None
    """With a threshold above this no card fits, with one up to it the first does; None where no
    threshold makes one fit."""
    margin: float | None
    """Log odds of the confidence less those of the threshold, negative where none fits; None
    without cards, and with a threshold of 0 or 1, which nothing can miss or reach."""
    lead: float | None
    """Log odds of the first card against the second; None where there is no second."""
    second_fits: bool | None
    """Whether the second would be chosen, were the first not there; None without a second."""
    number_of_cards: int


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a decision was made from."""

    question: profile.Question
    index: indexes.Index
    evidence: indexes.Evidence
    """How the question relates to each card of the index."""
    model: calibration.Model
    usual: Typical
    """Ordinary evidence of the model's calibration."""
    number_of_cards: int
    """That the router has."""


def typical(parts: Sequence[calibration.Rows]) -> Typical:
    """The ordinary evidence of a calibration.

    Args:
        parts: rows with at least one positive and one negative among them.
    """
    x_N_F = np.concatenate([part.features_N_F for part in parts])
    fits_N = np.concatenate([part.labels_N for part in parts]) > 0
    weights_N = np.concatenate([part.weights_N for part in parts])
    means = [np.average(x_N_F[one], axis=0, weights=weights_N[one]) for one in (fits_N, ~fits_N)]
    return Typical(
        0.5 * (means[0] + means[1]), x_N_F.std(axis=0), x_N_F.min(axis=0), x_N_F.max(axis=0)
    )


def explain(
    seen: Seen,
    ranked: Sequence[tuple[str, float]],
    confidence: float,
    threshold: float,
    most: int,
) -> Explanation:
    """Takes one decision apart.

    Args:
        seen: what it was made from.
        ranked: identity and probability of the best cards, best first, two if there are two.
        confidence: that any card fits.
        threshold: 0 to 1.
        most: cards to explain, at least 1.
    """
    places = {found.identity: at for at, found in enumerate(seen.index.profiles)}
    best = [(places[identity], probability) for identity, probability in ranked]
    limit = _log_odds(threshold)
    logits = seen.model.logits(seen.evidence)
    lead, second_fits = None, None
    if len(best) > 1:
        (first, _), (second, _) = best[:2]
        ranks = seen.model.ranks(seen.evidence)
        lead = float(ranks[first] - ranks[second])
        second_fits = bool(calibration.sigmoid(logits[second]) >= threshold)
    return Explanation(
        query=seen.question.text,
        reason=_reason(seen, len(ranked), confidence, threshold),
        cards=tuple(
            _weighed(seen, best[place : place + 2], limit) for place in range(min(len(best), most))
        ),
        confidence=confidence,
        none_probability=1.0 - confidence,
        threshold=threshold,
        flips_above=confidence if best else None,
        margin=None if limit is None or not best else float(logits[best[0][0]]) - limit,
        lead=lead,
        second_fits=second_fits,
        number_of_cards=seen.number_of_cards,
    )


def _reason(seen: Seen, ranked: int, confidence: float, threshold: float) -> Reason:
    if not seen.number_of_cards:
        return Reason.NO_CARDS
    if not seen.question.words:
        return Reason.NO_WORDS
    if not ranked:
        return Reason.NO_CARDS
    return Reason.TOO_UNSURE if confidence < threshold else Reason.FITS


def _weighed(seen: Seen, pair: Sequence[tuple[int, float]], limit: float | None) -> Weighed:
    """The first card of a pair, held against the next best one."""
    at, probability = pair[0]
    found, model = seen.index.profiles[at], seen.model
    rows_C_F, words = calibration.features(seen.evidence), seen.question.words
    row_F, log_odds = rows_C_F[at], float(model.logits(seen.evidence)[at])
    effects_F = model.weights_F * (row_F - seen.usual.mean_F)
    start = float(model.weights_F @ seen.usual.mean_F + model.bias)
    against_F = model.ranking_F * (row_F - rows_C_F[pair[1][0]]) if len(pair) > 1 else None
    told = {word for one in (*found.examples, *found.statements) for word in one.words}
    is_example = bool(seen.evidence.verbatim[at] > 0)
    contributions = []
    for column in np.argsort(-np.abs(effects_F), kind="stable"):
        weight, value = float(model.weights_F[column]), float(row_F[column])
        # One of the card's own examples fits whatever else is known of it.
        fixed = limit is None or is_example or abs(weight) < _LEAST_WEIGHT
        flips_at = None if fixed or limit is None else value - (log_odds - limit) / weight
        contributions.append(
            Contribution(
                feature=calibration.COLUMNS[column],
                value=value,
                typical=float(seen.usual.mean_F[column]),
                log_odds=float(effects_F[column]),
                against_next=None if against_F is None else float(against_F[column]),
                flips_at=flips_at,
                reachable=flips_at is not None
                and bool(seen.usual.least_F[column] <= flips_at <= seen.usual.most_F[column]),
            )
        )
    return Weighed(
        card=found.identity,
        probability=probability,
        fits=float(calibration.sigmoid(np.asarray(log_odds))),
        log_odds=log_odds,
        start=start,
        rest=log_odds - start - float(effects_F.sum()),
        is_example=is_example,
        examples=_nearest(seen.question, found),
        stand_in=found.card.stand_in,
        known_words=tuple(word for word in words if word in told),
        foreign_words=tuple(
            word for word, weight in words.items() if weight > 0 and word not in told
        ),
        contributions=tuple(contributions),
    )


def _nearest(question: profile.Question, found: profile.Profile) -> tuple[Example, ...]:
    cosines = np.stack([one.vector for one in found.examples]) @ question.vector
    order = np.argsort(-cosines, kind="stable")[:_EXAMPLES_SHOWN]
    return tuple(Example(found.examples[at].text, float(cosines[at])) for at in order)


def _log_odds(share: float) -> float | None:
    """Of a share from 0 to 1; None for its ends."""
    return math.log(share / (1.0 - share)) if 0.0 < share < 1.0 else None
