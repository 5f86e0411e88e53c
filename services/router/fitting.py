"""A calibration as the router keeps it: the model, what it is worth, and what is ordinary to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from services.router import calibration, explanation, reliability
from services.router import index as indexes
from services.router import profile as profiles


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Everything that follows from one set of rows."""

    model: calibration.Model
    usual: explanation.Typical
    reliability: reliability.Reliability


def fitted_to(
    parts: Sequence[calibration.Rows],
    index: indexes.Index | None = None,
    unrelated: Sequence[profiles.Question] = (),
) -> Fitted:
    """Fits a model and measures it; see `calibration.fit` and `reliability.measure`.

    Args:
        parts: rows with at least one positive and one negative among them.
        index: the cards that it is measured with; None measures nothing.
        unrelated: questions that belong to none of them.
    """
    model, measured = _fit(parts), reliability.UNKNOWN
    if index is not None:
        measured = reliability.measure(index, unrelated, parts, model, _fit)
    return Fitted(model, explanation.typical(parts), measured)


def _fit(parts: Sequence[calibration.Rows]) -> calibration.Model:
    return calibration.fit(parts, calibration.SIGNS)
