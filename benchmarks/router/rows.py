"""The figures of CLINC150 as rows: means over the samples of examples, beside the peers."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence

from benchmarks import results
from benchmarks.router import intents, outcomes

_TARGETS = {intents.ALL: (0.950, 0.975, 0.12), 10: (0.900, 0.965, 0.19), 5: (0.862, 0.953, 0.25)}
"""By examples of a card: least accuracy, least AUROC, most false positives."""
_MOST_ECE, _LEAST_IN, _LEAST_OUT = 0.05, 0.90, 0.80


@dataclasses.dataclass(frozen=True)
class Tried:
    """One trial's outcomes."""

    trial: intents.Trial
    routed: outcomes.Routed
    peer: outcomes.Outcome
    centroid: outcomes.Outcome


def of(tried: Sequence[Tried], peer: str, skipped: str = "") -> list[results.Row]:
    """All rows of the data set.

    Args:
        tried: nothing where the data set is not there.
        peer: what semantic-router's column is.
        skipped: why there is nothing.
    """
    found = []
    for examples in intents.EXAMPLES:
        full = of_kind(tried, examples, near=False)
        near = of_kind(tried, examples, near=True)
        found += _against_peers(full, examples, peer, skipped)
        found += _own(full, examples, skipped)
        found += _near(near, examples, peer, skipped)
    return found


def of_kind(tried: Sequence[Tried], examples: int, near: bool) -> list[Tried]:
    """The samples of one kind of trial."""
    return [one for one in tried if one.trial.examples == examples and one.trial.near is near]


def _against_peers(
    full: Sequence[Tried], examples: int, peer: str, skipped: str
) -> list[results.Row]:
    accuracy, auroc, fpr95 = _TARGETS[examples]
    figures: list[tuple[str, str, Callable[[outcomes.Outcome], float], float | None, float | None]]
    figures = [
        ("accuracy", "share", lambda said: said.accuracy, accuracy, None),
        ("auroc", "area", lambda said: said.auroc, auroc, None),
        ("fpr95", "share", lambda said: said.fpr95, None, fpr95),
    ]
    found = []
    for name, unit, figure, least, most in figures:
        value = _mean([figure(one.routed) for one in full])
        theirs = _mean([figure(one.peer) for one in full])
        row = results.Row(
            f"{name}_{examples}", value, unit, least, most, note=skipped or _samples(full)
        )
        found.append(_beside(row, peer, theirs, lower_is_better=most is not None))
        found.append(
            results.Row(
                f"centroid_{name}_{examples}",
                _mean([figure(one.centroid) for one in full]),
                unit,
                note=skipped or "the plain centroid",
            )
        )
    return found


def _own(full: Sequence[Tried], examples: int, skipped: str) -> list[results.Row]:
    note = skipped or _samples(full)
    return [
        results.Row(
            f"ece_{examples}",
            _mean([one.routed.ece for one in full]),
            "probability",
            most=_MOST_ECE,
            note=note,
        ),
        results.Row(
            f"in_scope_recall_{examples}",
            _mean([one.routed.in_scope_recall for one in full]),
            "share",
            least=_LEAST_IN,
            note=note,
        ),
        results.Row(
            f"out_scope_recall_{examples}",
            _mean([one.routed.out_scope_recall for one in full]),
            "share",
            least=_LEAST_OUT,
            note=note,
        ),
    ]


def _samples(full: Sequence[Tried]) -> str:
    return "all examples" if len(full) == 1 else f"mean of {len(full)} samples of examples"


def _near(near: Sequence[Tried], examples: int, peer: str, skipped: str) -> list[results.Row]:
    note = skipped or f"against 40 intents left out, mean of {len(near)} draws"
    row = results.Row(
        f"near_auroc_{examples}", _mean([one.routed.auroc for one in near]), "area", note=note
    )
    return [
        _beside(row, peer, _mean([one.peer.auroc for one in near]), lower_is_better=False),
        results.Row(
            f"centroid_near_auroc_{examples}",
            _mean([one.centroid.auroc for one in near]),
            "area",
            note=skipped or "the plain centroid",
        ),
        results.Row(
            f"near_out_scope_recall_{examples}",
            _mean([one.routed.out_scope_recall for one in near]),
            "share",
            note=note,
        ),
    ]


def _beside(
    row: results.Row, peer: str, theirs: float | None, lower_is_better: bool
) -> results.Row:
    if row.value is None or theirs is None:
        return row
    better, worse = (theirs, row.value) if lower_is_better else (row.value, theirs)
    ratio = better / worse if worse else None
    return dataclasses.replace(row, peer=peer, peer_value=theirs, ratio=ratio)


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None
