"""A calibration as the router keeps it: the model, what it is worth, and what is ordinary to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from services.router import (
    calibration,
    explanation,
    observation,
    practice,
    profile,
    reliability,
    space,
)
from services.router import index as indexes


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Everything that follows from one set of rows."""

    model: calibration.Model
    usual: explanation.Typical
    reliability: reliability.Reliability


def fitted_to(
    practised: calibration.Rows,
    observed: calibration.Rows | None = None,
    sharpening: float = 1.0,
) -> Fitted:
    """Fits a model and measures it; see `calibration.fit` and `reliability.measure`.

    Args:
        practised: rows with at least one positive and one negative among them.
        observed: of the cards, where there are any.
        sharpening: how many times as well their index tells them apart as those that made the rows.
    """
    parts, odds = [practised], 1.0
    if observed is not None:
        parts, odds = calibration.together(practised, observed), calibration.most_odds(observed)

    def plain(some: Sequence[calibration.Rows]) -> calibration.Model:
        return calibration.fit(some, calibration.SIGNS)

    measured = reliability.UNKNOWN
    if observed is not None and len(observed.labels_N):
        # What an index knows beyond its folds, and how many questions have a card, is not in them.
        measured = reliability.measure(parts[0], observed, plain)
    model = calibration.fit(parts, calibration.SIGNS, sharpening, odds)
    return Fitted(model, explanation.typical(parts), measured)


def among(
    ground: practice.Practice, index: indexes.Index, shortlist: observation.Near | None
) -> tuple[indexes.Index, Fitted]:
    """The same cards in a space of their own, and the calibration there.

    Args:
        ground: practice that the calibration includes.
        index: the cards.
        shortlist: tells which of them are compared with a question; None: all.
    """

    def indexed(cards: Sequence[profile.Profile]) -> indexes.Index:
        groups = [np.stack([e.vector for e in p.examples]) for p in cards]
        own = space.sums(groups) if groups else None
        return indexes.Index(cards, space.fit(ground.sums, own), index.bounded)

    cards, unrelated, rows = index.profiles, ground.unrelated, ground.rows
    fitted = indexed(cards)
    if shortlist is None:
        observed = observation.observe(cards, indexed, unrelated)
        return fitted, fitted_to(rows, observed, observation.FOLD_SHARPENING)

    def few(some: Sequence[profile.Profile]) -> indexes.Index:
        return indexes.Index(some, fitted.space, bounded=False, rarities_of=fitted)

    observed = observation.observe_near(cards, shortlist, few, unrelated)
    return fitted, fitted_to(rows.without("boundary"), observed)
