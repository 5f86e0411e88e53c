"""A hierarchy that is killed goes on to the bit as if it had never been."""

from __future__ import annotations

import multiprocessing.context
import pathlib
import random
import signal
import time

import pytest

from services.hierarchy import tick
from tests.unit.hierarchy import crashing

SEED = 5
TICKS = 20
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
def processes() -> multiprocessing.context.ForkServerContext:
    """Processes of their own that need not import everything anew."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([crashing.__name__])
    return context


@pytest.fixture(scope="module")
def uninterrupted(
    processes: multiprocessing.context.ForkServerContext,
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    return finished(processes, tmp_path_factory.mktemp("uninterrupted"))


def finished(processes: multiprocessing.context.ForkServerContext, folder: pathlib.Path) -> str:
    process = processes.Process(target=crashing.run, args=(folder, TICKS, SEED))
    process.start()
    process.join()
    assert process.exitcode == 0
    return (folder / "digest").read_text()


def test_state_is_that_of_an_uninterrupted_run_when_killed_after_each_stage(
    processes: multiprocessing.context.ForkServerContext,
    uninterrupted: str,
    tmp_path: pathlib.Path,
) -> None:
    for number, point in enumerate(POINTS):
        # Some at the first tick after the start, some a tick later.
        process = processes.Process(
            target=crashing.run, args=(tmp_path, TICKS, SEED, point, 1 + number % 2)
        )
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL, point
    assert finished(processes, tmp_path) == uninterrupted


def test_state_is_that_of_an_uninterrupted_run_when_killed_at_any_moment(
    processes: multiprocessing.context.ForkServerContext,
    uninterrupted: str,
    tmp_path: pathlib.Path,
) -> None:
    draw = random.Random(0)
    kills = 0
    while not (tmp_path / "digest").exists():
        process = processes.Process(target=crashing.run, args=(tmp_path, TICKS, SEED))
        process.start()
        wait_for_state(tmp_path)
        process.join(timeout=draw.random() * 0.15)
        kills += process.exitcode is None
        process.kill()
        process.join()
    assert kills > 0 and (tmp_path / "digest").read_text() == uninterrupted


def wait_for_state(folder: pathlib.Path) -> None:
    """Until the process has begun to tick, so that each gets some way."""
    before = newest(folder)
    end = time.monotonic() + 60
    while newest(folder) == before and time.monotonic() < end:
        time.sleep(0.005)


def newest(folder: pathlib.Path) -> str:
    return max((path.name for path in folder.glob("state-*")), default="")
