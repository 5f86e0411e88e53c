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


def fitted_to(parts: Sequence[calibration.Rows]) -> Fitted:
    """Fits a model and measures it; see `calibration.fit`.

    Args:
        parts: rows with at least one positive and one negative among them.
    """
    return Fitted(_fit(parts), explanation.typical(parts), reliability.measure(parts, _fit))


def _fit(parts: Sequence[calibration.Rows]) -> calibration.Model:
    return calibration.fit(parts, calibration.SIGNS)
