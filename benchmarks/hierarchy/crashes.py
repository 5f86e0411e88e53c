"""Processes that tick a hierarchy on disk and are killed: is the state that of an unhurt run?"""

from __future__ import annotations

import multiprocessing.context
import os
import pathlib
import random
import signal
import tempfile
import time

import torch

from benchmarks.hierarchy import load
from services.hierarchy import hierarchy, journal
from shared import atomic, telemetry
from shared import settings as config

MIXTURE = load.Mixture(agents=3, circuit=0.5, offered=0.2)
_DIGEST = "digest"
_LONGEST_S = 0.15
"""That a process lives on after its first tick."""


def run(folder: pathlib.Path, ticks: int, seed: int, point: str = "", count: int = 1) -> None:
    """What a process does: ticks until there were that many, then writes the state's digest.

    Args:
        folder: of the journal.
        ticks: how many.
        seed: of the load.
        point: at which the process kills itself; empty for none.
        count: how often it comes by there before.
    """
    torch.set_num_threads(1)
    telemetry.configure(config.Telemetry(log_level="error"), "bench")
    seen = 0

    def at(name: str) -> None:
        nonlocal seen
        seen += name == point
        if name == point and seen == count:
            os.kill(os.getpid(), signal.SIGKILL)

    kept = journal.Journal(folder, at)
    held = hierarchy.LoRAHierarchy(load.SMALL, kept_in=kept, at=at)
    while held.state.ticks < ticks:
        load.send(held, held.state.ticks, seed, MIXTURE)
        at("sent")
        held.system_tick()
    kept.close()
    atomic.write(folder / _DIGEST, held.digest().encode())


class Killing:
    """Starts processes and kills them."""

    def __init__(self, ticks: int, seed: int) -> None:
        """Takes the run that each process is to end."""
        self._ticks, self._seed = ticks, seed
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload([__name__])
        self.kills = 0

    def unhurt(self) -> str:
        """The digest of a run that nobody kills."""
        with tempfile.TemporaryDirectory() as name:
            return self.finished(pathlib.Path(name))

    def finished(self, folder: pathlib.Path) -> str:
        """The digest of a run that goes on in a folder, to its end."""
        process = self._process(folder)
        process.start()
        process.join()
        if process.exitcode != 0:
            raise RuntimeError(f"a run in {folder} ended with {process.exitcode}")
        return self._digest(folder)

    def until(self, folder: pathlib.Path, point: str, count: int) -> int | None:
        """Lets a process go on to a point, where it kills itself; its exit code."""
        process = self._process(folder, point, count)
        process.start()
        process.join()
        self.kills += process.exitcode == -signal.SIGKILL
        return process.exitcode

    def at_random(self, folder: pathlib.Path, draw: random.Random) -> str:
        """Kills process after process at any moment, until one comes to the end; the digest."""
        while not (folder / _DIGEST).exists():
            before = _newest(folder)
            process = self._process(folder)
            process.start()
            while process.is_alive() and _newest(folder) == before:
                time.sleep(0.002)  # Each gets some way: its start takes longer than many ticks.
            process.join(timeout=draw.random() * _LONGEST_S)
            self.kills += process.is_alive()
            process.kill()
            process.join()
        return self._digest(folder)

    def _process(
        self, folder: pathlib.Path, point: str = "", count: int = 1
    ) -> multiprocessing.context.ForkServerProcess:
        arguments = (folder, self._ticks, self._seed, point, count)
        return self._processes.Process(target=run, args=arguments)

    def _digest(self, folder: pathlib.Path) -> str:
        return (folder / _DIGEST).read_text(encoding="ascii")


def _newest(folder: pathlib.Path) -> str:
    return max((path.name for path in folder.glob("state-*")), default="")
