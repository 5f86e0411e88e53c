"""Arithmetic on changes of A and B, against whole matrices."""

from __future__ import annotations

import math

import pytest
import torch

from shared.hierarchy import changes, weights
from tests.unit.hierarchy import random_weights

SIDES, RANK = (5, 4), 3


def change(seed: int, *paths: str) -> dict[str, weights.Factors]:
    return random_weights.change(seed, paths or ("q", "v"), SIDES, RANK)


def test_total_adds_each_side_and_keeps_modules_that_one_alone_has() -> None:
    one, other = change(1, "q"), change(2, "v", "q")
    found = changes.total([one, other])
    assert list(found) == ["q", "v"]
    assert torch.equal(found["q"].a, one["q"].a + other["q"].a)
    assert torch.equal(found["q"].b, one["q"].b + other["q"].b)
    assert found["v"] is other["v"] and changes.total([]) == {}


def test_scaled_scales_both_sides() -> None:
    one = change(1)
    found = changes.scaled(one, -0.5)
    assert all(torch.equal(found[path].a, -0.5 * one[path].a) for path in one)
    assert all(torch.equal(found[path].b, -0.5 * one[path].b) for path in one)


def test_less_takes_away_what_total_added() -> None:
    one, other = change(1), change(2, "q")
    found = changes.less(changes.total([one, other]), other)
    for path in one:
        torch.testing.assert_close(found[path].a, one[path].a)
        torch.testing.assert_close(found[path].b, one[path].b)


def test_between_leads_from_one_state_to_the_other() -> None:
    before, step = change(1), change(2)
    after = changes.total([before, step])
    found = changes.between(before, after)
    for path in before:
        torch.testing.assert_close(found[path].a, step[path].a)
        torch.testing.assert_close(found[path].b, step[path].b)


def test_size_is_the_norm_of_all_values_and_nothing_has_none() -> None:
    one = change(3)
    flat = torch.cat([side.flatten() for pair in one.values() for side in (pair.a, pair.b)])
    assert changes.size(one) == pytest.approx(float(flat.norm()), rel=1e-6)
    assert changes.size(changes.scaled(one, 2.0)) == pytest.approx(2 * changes.size(one))
    assert changes.size({}) == 0.0 and math.isfinite(changes.size(one))
