"""What a process does that ticks a hierarchy on disk, for tests that kill it."""

from __future__ import annotations

import os
import pathlib
import signal

import torch

from benchmarks.hierarchy import load
from services.hierarchy import hierarchy, journal
from shared import atomic
from tests.unit.hierarchy import making

MIXTURE = load.Mixture(agents=3, circuit=0.5, offered=0.2)


def run(folder: pathlib.Path, ticks: int, seed: int, point: str = "", count: int = 1) -> None:
    """Ticks until there were that many; then the digest of the state is in the file `digest`.

    Args:
        folder: of the journal.
        ticks: how many.
        seed: of the load.
        point: at which the process kills itself; empty for none.
        count: how often it comes by there before.
    """
    torch.set_num_threads(1)
    seen = 0

    def at(name: str) -> None:
        nonlocal seen
        seen += name == point
        if name == point and seen == count:
            os.kill(os.getpid(), signal.SIGKILL)

    kept = journal.Journal(folder, at)
    held = hierarchy.LoRAHierarchy(making.FRAME, kept_in=kept, at=at)
    while held.state.ticks < ticks:
        load.send(held, held.state.ticks, seed, MIXTURE)
        at("sent")
        held.system_tick()
    kept.close()
    atomic.write(folder / "digest", held.digest().encode())
