"""Two pictures of the data set's figures: are the probabilities honest, and is none told from some.

Outcomes of several samples are drawn as one.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import matplotlib
import numpy as np

from benchmarks.router import intents, outcomes
from benchmarks.router import rows as figures
from services.router import reliability as reliabilities

_COLOURS = {intents.ALL: "#2a7f62", 10: "#b3702a", 5: "#5a4fb3"}


def reliability(path: pathlib.Path, tried: Sequence[figures.Tried]) -> None:
    """Share of right first cards over their probability, in the bins of the calibration error."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 6), layout="constrained")
    axes.plot([0, 1], [0, 1], color="#888888", linewidth=0.8, label="honest")
    for examples in intents.EXAMPLES:
        own = [one.routed for one in figures.of_kind(tried, examples, near=False)]
        bins = _together_routed(own).bins()
        ece = float(np.mean([one.ece for one in own]))
        axes.plot(
            [one.probability for one in bins],
            [one.share for one in bins],
            marker="o",
            markersize=4,
            color=_COLOURS[examples],
            label=f"{examples} examples a card: error {ece:.3f}",
        )
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_xlabel("probability of the first card")
    axes.set_ylabel("share in which it is right")
    axes.set_title(
        f"CLINC150, test and out-of-scope test together, {reliabilities.BINS} bins of equal mass",
        fontsize=10,
    )
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def roc(path: pathlib.Path, tried: Sequence[figures.Tried]) -> None:
    """Questions with a card that pass over those without one that do, at every threshold."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 3, figsize=(13, 4.8), layout="constrained", sharey=True)
    for axes, examples in zip(panels, intents.EXAMPLES, strict=True):
        full = figures.of_kind(tried, examples, near=False)
        curves: list[tuple[str, str, list[outcomes.Outcome]]] = [
            ("this router", "-", [one.routed for one in full]),
            ("semantic-router's rule", "--", [one.peer for one in full]),
            ("plain centroid", ":", [one.centroid for one in full]),
        ]
        for name, style, own in curves:
            auroc = float(np.mean([one.auroc for one in own]))
            axes.plot(
                *_together(own).curve(),
                style,
                color=_COLOURS[examples],
                linewidth=1.4,
                label=f"{name}: {auroc:.3f}",
            )
        axes.axhline(0.95, color="#888888", linewidth=0.6)
        axes.set(xlim=(0, 0.6), ylim=(0.6, 1.0))
        axes.set_title(f"{examples} examples a card", fontsize=10)
        axes.set_xlabel("out-of-scope questions that pass")
        axes.legend(loc="lower right", title="area under the whole curve")
    panels[0].set_ylabel("questions with a card that pass")
    figure.suptitle("CLINC150: in scope against out of scope (corner of the ROC curve)")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _together(own: Sequence[outcomes.Outcome]) -> outcomes.Outcome:
    return outcomes.Outcome(
        np.concatenate([one.inside_N for one in own]),
        np.concatenate([one.right_N for one in own]),
        np.concatenate([one.score_N for one in own]),
    )


def _together_routed(own: Sequence[outcomes.Routed]) -> outcomes.Routed:
    return outcomes.Routed(
        **{
            field.name: np.concatenate([getattr(one, field.name) for one in own])
            for field in dataclasses.fields(outcomes.Routed)
        }
    )
