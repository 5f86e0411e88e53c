from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from shared.hierarchy import recurrence
from tests.unit.hierarchy import streams

SEEDS = range(200)


def found(stream: torch.Tensor) -> list[recurrence.Pattern]:
    return [one for one in recurrence.patterns(stream, 0.8, 4) if one.recurrence >= 0.7]


def test_recurrence_is_the_best_lag_of_the_textbook_estimate() -> None:
    series = torch.rand(100, generator=streams.seeded(3)) - 0.9
    centred = (series.double() - series.double().mean()).numpy()
    by_hand = [np.sum(centred[: 100 - lag] * centred[lag:]) for lag in range(1, 51)]
    share = float((series > 0).double().mean())
    expected = max(share, max(by_hand) / float(centred @ centred))
    assert recurrence.recurrence(series) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        (torch.ones(100), 1.0),
        (torch.full((100,), 0.83), 1.0),
        (torch.zeros(100), 0.0),
        (torch.tensor([1.0]), 0.0),
        (torch.zeros(0), 0.0),
        (torch.tensor([1.0, 0.0] * 50), 0.98),
        (torch.cat([torch.ones(97), torch.zeros(3)]), 0.97),
        (torch.tensor([1.0] + [0.0] * 99), 0.01),
        (torch.tensor(([0.0] * 9 + [1.0]) * 10), 0.9),
    ],
)
def test_recurrence_is_known_when_a_series_is_simple(series: torch.Tensor, expected: float) -> None:
    assert recurrence.recurrence(series) == pytest.approx(expected, abs=0.011)


def test_a_pattern_that_comes_at_random_hardly_recurs() -> None:
    rates = []
    for seed in SEEDS:
        series = (torch.rand(100, generator=streams.seeded(seed)) < 0.3).float()
        rates.append(recurrence.recurrence(series))
    assert max(rates) < 0.7 and sum(rates) / len(rates) < 0.45


@pytest.mark.parametrize("length", [20, 40, 100])
def test_nothing_is_found_when_signatures_are_unlike(length: int) -> None:
    false = [bool(found(streams.unlike(length, streams.seeded(seed)))) for seed in SEEDS]
    assert sum(false) / len(false) < 0.05


@pytest.mark.parametrize("topics", [3, 5, 20])
def test_hardly_anything_is_found_when_topics_come_at_random(topics: int) -> None:
    false = [bool(found(streams.topics(100, topics, streams.seeded(seed)))) for seed in SEEDS]
    assert sum(false) / len(false) < 0.05


@pytest.mark.parametrize("planted", [streams.periodic, streams.bursty])
def test_a_planted_pattern_is_found_when_it_is_periodic_or_comes_in_bursts(
    planted: Callable[[int, torch.Generator], tuple[torch.Tensor, torch.Tensor]],
) -> None:
    right = 0
    for seed in SEEDS:
        stream, pattern = planted(100, streams.seeded(seed))
        right += [float(one.prototype @ pattern) > 0.9 for one in found(stream)] == [True]
    assert right / len(SEEDS) >= 0.9


def test_a_stream_of_one_pattern_is_found_when_nothing_else_comes() -> None:
    [whole] = found(streams.topics(100, 1, streams.seeded(0)))
    assert whole.recurrence > 0.99 and bool(whole.present.all())


def test_nothing_is_found_when_nothing_is_active() -> None:
    assert recurrence.patterns(torch.zeros(50, 8), 0.8, 4) == []
    assert recurrence.patterns(torch.zeros(0, 8), 0.8, 4) == []


def test_two_patterns_are_told_apart_when_they_alternate() -> None:
    pair = streams.units(2, streams.seeded(1))
    stream = streams.varied(pair.repeat(40, 1), streams.seeded(2))
    both = found(stream)
    assert [int(one.present.sum()) for one in both] == [40, 40]
    assert not bool((both[0].present & both[1].present).any())
