from __future__ import annotations

import pytest

from services.trainer import loop, pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def step(number: int, tokens: int) -> loop.Progress:
    return loop.Progress(number, 50, 0.5, None, checked=False, tokens=tokens)


def test_speed_and_time_left_are_those_of_the_steps_so_far() -> None:
    clock = Clock()
    meter = pace.Meter(clock)
    found = [meter.pace(step(0, 0))]
    for number in range(1, 11):
        clock.now += 2.0
        found.append(meter.pace(step(number, number * 300)))
    assert found[0] == pace.Pace(0, 0.5, 0.0, 0.0)
    assert found[-1] == pace.Pace(10, 0.5, pytest.approx(150.0), pytest.approx(80.0))
    assert str(found[-1]) == "step 10, loss 0.500, 150 tokens/s, 80 s left"


def test_time_left_counts_the_steps_of_this_process_when_a_training_is_resumed() -> None:
    clock = Clock()
    meter = pace.Meter(clock)
    meter.pace(step(40, 0))
    clock.now += 3.0
    meter.pace(step(41, 300))
    clock.now += 3.0
    assert meter.pace(step(42, 600)).left_s == pytest.approx(24.0)


def test_the_first_step_counts_when_a_training_begins() -> None:
    clock = Clock()
    meter = pace.Meter(clock)
    clock.now += 3.0
    assert meter.pace(step(1, 300)).left_s == pytest.approx(147.0)


def test_news_are_due_when_a_second_has_passed() -> None:
    clock = Clock()
    meter = pace.Meter(clock)
    assert not meter.due()
    clock.now += 1.0
    assert meter.due() and not meter.due()
