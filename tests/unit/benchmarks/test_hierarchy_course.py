from __future__ import annotations

import dataclasses
import json

import pytest

from benchmarks.hierarchy import course, one_course, variants


def at(met: float, others: float = 0.5) -> course.Accuracy:
    return course.Accuracy(met, met / 2, others, others / 2)


TABLE = (
    (at(1.0),),
    (at(0.6), at(0.8)),
    (at(0.4), at(0.9), at(0.7, others=0.2)),
)
COURSE = course.Course(TABLE, known=0.9, seconds=12.0)


def test_figures_are_those_counted_by_hand() -> None:
    assert COURSE.average == pytest.approx((0.4 + 0.9 + 0.7) / 3)
    assert COURSE.old == pytest.approx((0.4 + 0.9) / 2)
    assert COURSE.backward == pytest.approx(((0.4 - 1.0) + (0.9 - 0.8)) / 2)
    assert COURSE.plasticity == pytest.approx((1.0 + 0.8 + 0.7) / 3)
    assert COURSE.others == pytest.approx((0.5 + 0.5 + 0.2) / 3)
    assert COURSE.unseen == pytest.approx((0.2 + 0.45 + 0.35) / 3)


def test_course_comes_back_from_its_process_as_it_was() -> None:
    assert course.from_json(json.dumps(dataclasses.asdict(COURSE))) == COURSE


def test_bad_agents_are_the_last_ones_of_the_plan() -> None:
    plan = one_course.Job("as shipped", agents=5, seen_by=4, bad=1).plan
    assert plan.bad == frozenset({4})


def test_every_ablation_differs_from_what_is_shipped() -> None:
    shipped = variants.VARIANTS[variants.SHIPPED]
    others = [one for name, one in variants.VARIANTS.items() if name != variants.SHIPPED]
    assert all(one != shipped for one in others)
