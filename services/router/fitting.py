"""A calibration as the router keeps it: the model, what it is worth, and what is ordinary to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from services.router import calibration, explanation, reliability


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Everything that follows from one set of rows."""

    model: calibration.Model
    usual: explanation.Typical
    reliability: reliability.Reliability


def fitted_to(
    practice: calibration.Rows,
    observed: calibration.Rows | None = None,
    sharpening: float = 1.0,
) -> Fitted:
    """Fits a model and measures it; see `calibration.fit` and `reliability.measure`.

    Args:
        practice: rows with at least one positive and one negative among them.
        observed: of the cards, where there are any.
        sharpening: how many times as well their index tells them apart as those that made the rows.
    """
    parts, odds = [practice], 1.0
    if observed is not None:
        parts, odds = calibration.together(practice, observed), calibration.most_odds(observed)

    def plain(some: Sequence[calibration.Rows]) -> calibration.Model:
        return calibration.fit(some, calibration.SIGNS)

    measured = reliability.UNKNOWN
    if observed is not None and len(observed.labels_N):
        # What an index knows beyond its folds, and how many questions have a card, is not in them.
        measured = reliability.measure(parts[0], observed, plain)
    model = calibration.fit(parts, calibration.SIGNS, sharpening, odds)
    return Fitted(model, explanation.typical(parts), measured)
