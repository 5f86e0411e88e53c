"""Pictures of the courses: what becomes of each domain, and what each mechanism does."""

from __future__ import annotations

import pathlib
import statistics
from collections.abc import Mapping, Sequence

import matplotlib

from benchmarks.hierarchy import course

_COLOURS = ("#2a7f62", "#b3402a", "#b3702a", "#5a4fb3", "#666666")


def courses(path: pathlib.Path, found: Mapping[str, Sequence[course.Course]]) -> None:
    """Accuracy over all domains met so far, after each, one line a method; means over seeds."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
    for colour, (name, of_seeds) in zip(_COLOURS, found.items(), strict=False):
        steps = range(1, len(of_seeds[0].table) + 1)
        met = [
            statistics.fmean(one.met for each in of_seeds for one in each.table[step - 1])
            for step in steps
        ]
        left.plot(steps, met, marker="o", markersize=4, color=colour, label=name)
        first = [
            statistics.fmean(each.table[step - 1][0].met for each in of_seeds) for step in steps
        ]
        right.plot(steps, first, marker="o", markersize=4, color=colour, label=name)
    left.set_title("accuracy on all domains met so far", fontsize=10)
    right.set_title("accuracy on the first domain", fontsize=10)
    for axes in (left, right):
        axes.set(ylim=(-0.02, 1.05))
        axes.set_xlabel("domains learned, one after the other")
    left.set_ylabel("share of right answers")
    left.legend(loc="lower left", fontsize=8)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def ablations(path: pathlib.Path, found: Mapping[str, Sequence[course.Course]]) -> None:
    """What is left when a mechanism is taken away, one pair of bars each; means over seeds."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 0.5 * len(found) + 1.4), layout="constrained")
    places = range(len(found))
    old = [statistics.fmean(one.old for one in own) for own in found.values()]
    others = [statistics.fmean(one.others for one in own) for own in found.values()]
    axes.barh([at - 0.2 for at in places], old, 0.38, color=_COLOURS[0], label="old domains")
    axes.barh(
        [at + 0.2 for at in places],
        others,
        0.38,
        color=_COLOURS[3],
        label="agents that never met the domain",
    )
    axes.set_yticks(list(places), list(found))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.02)
    axes.set_xlabel("share of right answers at the end")
    figure.legend(loc="outside lower right", ncols=2, fontsize=8)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
