"""Holds the process to one core while something is timed."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator

import threadpoolctl


@contextlib.contextmanager
def one() -> Iterator[str]:
    """Keeps every thread of this process on one core; says so, or that it can't be done here."""
    tasks = pathlib.Path("/proc/self/task")
    if not tasks.is_dir():
        yield "not held to one core on this system"
        return
    before = os.sched_getaffinity(0)
    _hold(tasks, {min(before)})
    try:
        # BLAS threads that share one core only wait for one another.
        with threadpoolctl.threadpool_limits(1):
            yield "one core"
    finally:
        _hold(tasks, before)


def _hold(tasks: pathlib.Path, cores: set[int]) -> None:
    for task in tasks.iterdir():
        with contextlib.suppress(ProcessLookupError):  # A thread may end meanwhile.
            os.sched_setaffinity(int(task.name), cores)
