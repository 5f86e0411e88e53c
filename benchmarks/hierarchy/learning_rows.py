"""Rows of continual learning: six domains in turn, beside other methods; bad agents."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from benchmarks import results
from benchmarks.hierarchy import (
    ablation_rows,
    baselines,
    course,
    one_course,
    plots,
    variants,
)

SEEDS = (0, 1)
_SEQUENCE = "one LoRA in sequence"
_OURS = variants.SHIPPED
_SWARM = {"agents": 5, "seen_by": 4, "domains": 3}
"""One of five is bad; all others meet a domain but one."""


def rows(seeds: Sequence[int] = SEEDS) -> list[results.Row]:
    """Takes an hour of one core; half of that on two.

    Args:
        seeds: of the hierarchy and of one LoRA in sequence; the others run with the first alone.
    """
    of_method = {
        name: seeds if name in (_OURS, _SEQUENCE) else seeds[:1]
        for name in (_OURS, *baselines.BASELINES)
    }
    jobs = [one_course.Job(name, seed=seed) for name, own in of_method.items() for seed in own]
    told = [_bad(seeds[0], count) for count in (0, 1)]
    wanted = [*jobs, *told]
    found = dict(zip(wanted, one_course.run_all(wanted), strict=True))
    by_method = {
        name: [found[one_course.Job(name, seed=seed)] for seed in own]
        for name, own in of_method.items()
    }
    named = {"the hierarchy" if name == _OURS else name: own for name, own in by_method.items()}
    plots.courses(results.FOLDER / "hierarchy_courses.png", named)
    of_bad = _of_bad(*(found[job].average for job in told))
    return [*_main(by_method), of_bad, *_peers(by_method)]


def _bad(seed: int, count: int) -> one_course.Job:
    return one_course.Job(_OURS, seed=seed, bad=count, **_SWARM)


def _main(found: Mapping[str, Sequence[course.Course]]) -> list[results.Row]:
    ours, sequence = found[_OURS], found[_SEQUENCE]
    old, old_of_sequence = _mean(ours, "old"), _mean(sequence, "old")
    return [
        results.Row(
            "old_domains",
            old,
            "share",
            least=0.80,
            note="all but the last of six domains, in taught wordings, at the end; "
            f"{_each(ours, 'old')}; in wordings that nobody was taught {_mean(ours, 'unseen'):.2f}",
        ),
        results.Row(
            "gain_over_sequential",
            old - old_of_sequence,
            "share",
            least=0.20,
            peer=_SEQUENCE,
            peer_value=old_of_sequence,
        ),
        results.Row(
            "backward_transfer",
            _mean(ours, "backward"),
            "share",
            least=-0.10,
            peer=_SEQUENCE,
            peer_value=_mean(sequence, "backward"),
        ),
        results.Row(
            "transfer_to_others",
            _mean(ours, "others"),
            "share",
            least=0.60,
            note="agents that never met a domain, in taught wordings, at the end; "
            f"{_each(ours, 'others')}",
        ),
        results.Row("average_accuracy", _mean(ours, "average"), "share"),
        results.Row(
            "known_kept",
            _mean(ours, "known"),
            "share",
            peer=_SEQUENCE,
            peer_value=_mean(sequence, "known"),
            note="questions about anything else, answered to the letter as the bare base does; "
            "learned with none of them",
        ),
        results.Row(
            "plasticity",
            _mean(ours, "plasticity"),
            "share",
            note="on a domain just when it was learned",
        ),
    ]


def _of_bad(without: float, among: float) -> results.Row:
    return results.Row(
        "bad_agents_loss",
        without - among,
        "share",
        most=0.05,
        note=f"of the honest four, where a fifth agent sends shuffled answers: {among:.2f} "
        f"after {without:.2f} with five honest ones; three domains, one seed",
    )


def _peers(found: Mapping[str, Sequence[course.Course]]) -> list[results.Row]:
    """The other baselines, by the same names."""
    return [
        results.Row(
            f"old_domains_{ablation_rows.wording(name)}",
            _mean(courses, "old"),
            "share",
            note=f"average {_mean(courses, 'average'):.2f}, backward transfer "
            f"{_mean(courses, 'backward'):.2f}, known kept {_mean(courses, 'known'):.2f}, "
            f"plasticity {_mean(courses, 'plasticity'):.2f}, "
            f"processor time {_mean(courses, 'seconds'):.0f} s",
        )
        for name, courses in found.items()
        if name != _OURS
    ]


def _mean(courses: Sequence[course.Course], figure: str) -> float:
    return statistics.fmean(getattr(one, figure) for one in courses)


def _each(courses: Sequence[course.Course], figure: str) -> str:
    return "seeds " + ", ".join(f"{getattr(one, figure):.2f}" for one in courses)


if __name__ == "__main__":
    results.print_rows("hierarchy", rows())
