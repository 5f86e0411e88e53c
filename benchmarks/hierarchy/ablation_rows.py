"""Rows of what each mechanism of the hierarchy is good for: it is taken away, and nothing else.

Three domains show what a mechanism does to what was learned last, six what it does in the long run,
and a swarm with an agent that lies what it does against that.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks import results
from benchmarks.hierarchy import course, one_course, plots, variants

_SEEDS, _DOMAINS = (0, 1), 3
_ONE_SEED = ("no rehearsal", "no learning again while idle", "no steps of the shared layers alone")
"""Their differences are too large to be chance."""
_LONG_SEEDS, _LONG_DOMAINS = (0, 1), 6
_LONG = (
    "no screening",
    "no decay to the start",
    variants.NEITHER_SCREENING_NOR_DECAY,
    "one speed for all layers",
)
_SWARM = {"agents": 5, "seen_by": 4, "domains": 3, "bad": 1}
_AGAINST_LIARS = (variants.SHIPPED, "no robust aggregation", variants.NO_RESONANCE)


def rows() -> list[results.Row]:
    """Takes two and a half hours of one core; half of that on two."""
    short = {
        name: [
            one_course.Job(name, domains=_DOMAINS, seed=seed)
            for seed in (_SEEDS[:1] if name in _ONE_SEED else _SEEDS)
        ]
        for name in variants.VARIANTS
    }
    long = {
        name: [one_course.Job(name, domains=_LONG_DOMAINS, seed=seed) for seed in _LONG_SEEDS]
        for name in (variants.SHIPPED, *_LONG)
    }
    liars = {name: [one_course.Job(name, **_SWARM)] for name in _AGAINST_LIARS}
    groups = (short, long, liars)
    jobs = [job for group in groups for own in group.values() for job in own]
    found = dict(zip(jobs, one_course.run_all(jobs), strict=True))
    courses = [
        {name: [found[job] for job in own] for name, own in group.items()} for group in groups
    ]
    plots.ablations(results.FOLDER / "hierarchy_ablations.png", courses[0])
    return [
        *_beside(courses[0], "ablation"),
        *_beside(courses[1], "ablation_of_six"),
        *(
            results.Row(f"among_liars_{wording(name)}", _mean(own, "average"), "share")
            for name, own in courses[2].items()
        ),
    ]


def _beside(found: dict[str, list[course.Course]], begin: str) -> list[results.Row]:
    """What each leaves of old domains, beside the whole with the same seeds."""
    whole = found[variants.SHIPPED]
    made = []
    for name, own in found.items():
        if name == variants.SHIPPED:
            continue
        same = whole[: len(own)]
        told = "; ".join(
            f"{title} {_each(own, figure)} of {_each(same, figure)} as shipped"
            for title, figure in (("old", "old"), ("others", "others"), ("known", "known"))
        )
        gain = _mean(own, "old") - _mean(same, "old")
        note = f"{told}; {len(own[0].table)} domains, seeds in turn"
        made.append(results.Row(f"{begin}_{wording(name)}", gain, "share", note=note))
    return made


def wording(name: str) -> str:
    """A method's name as part of a row's."""
    return name.lower().replace(" ", "_")


def _mean(courses: Sequence[course.Course], figure: str) -> float:
    return statistics.fmean(getattr(one, figure) for one in courses)


def _each(courses: Sequence[course.Course], figure: str) -> str:
    return ", ".join(f"{getattr(one, figure):.2f}" for one in courses)


if __name__ == "__main__":
    results.print_rows("hierarchy", rows())
