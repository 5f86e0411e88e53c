"""A hierarchy that is killed goes on to the bit as if it had never been."""

from __future__ import annotations

import pathlib
import random
import signal

import pytest

from benchmarks.hierarchy import crashes
from services.hierarchy import tick

POINTS = [
    "sent",
    *[name for name, _ in tick.STAGES],
    "before commit",
    "after commit",
    "taken removed",
    "old removed",
    "commit",
]


@pytest.fixture(scope="module")
def killing() -> crashes.Killing:
    return crashes.Killing(ticks=20, seed=5)


@pytest.fixture(scope="module")
def unhurt(killing: crashes.Killing) -> str:
    return killing.unhurt()


def test_state_is_that_of_an_uninterrupted_run_when_killed_after_each_stage(
    killing: crashes.Killing, unhurt: str, tmp_path: pathlib.Path
) -> None:
    for number, point in enumerate(POINTS):
        # Some at the first tick after the start, some a tick later.
        assert killing.until(tmp_path, point, 1 + number % 2) == -signal.SIGKILL, point
    assert killing.finished(tmp_path) == unhurt


def test_state_is_that_of_an_uninterrupted_run_when_killed_at_any_moment(
    killing: crashes.Killing, unhurt: str, tmp_path: pathlib.Path
) -> None:
    before = killing.kills
    assert killing.at_random(tmp_path, random.Random(0)) == unhurt
    assert killing.kills > before
