"""Ten thousand ticks under random load, the time of one on real shapes, and kills at any moment."""

from __future__ import annotations

import collections
import os
import pathlib
import random
import statistics
import tempfile

import torch

from benchmarks import results
from benchmarks.hierarchy import crashes, load
from services.hierarchy import hierarchy, journal
from shared import terminal
from shared.hierarchy import levels, weights, wire

TICKS = 10_000
_TIMED = 100
_WARM = 0.2
"""Share of the ticks after which memory is taken as settled."""
_MOST_GROWTH_MIB = 16.0
_CHANNELS = 3
"""Between the layers, from agent to foundation: no circuit moves more often."""
_MEMORY = pathlib.Path("/dev/shm")
"""Where the long run keeps its files, if there is one: waiting for a disk would be most of it."""
_RUNS, _RUN_TICKS = 10, 40
_LOW, _HIGH = 0.8, 1.2
EMBEDDED = wire.Frame(
    {
        f"model.layers.{layer}.self_attn.{kind}": weights.Shape(256, 256)
        for layer in range(4)
        for kind in levels.DEFAULT_KINDS
    }
)
"""Shapes of the embedded base."""


def rows(ticks: int = TICKS) -> list[results.Row]:
    """All of them; one thread, about ten minutes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [*_long_run(ticks), *_times(), *_kills()]
    finally:
        torch.set_num_threads(threads)


def _long_run(ticks: int) -> list[results.Row]:
    terminal.NOTES.print(f"hierarchy: {ticks} ticks under random load")
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as name:
        kept = journal.Journal(pathlib.Path(name))
        held = hierarchy.LoRAHierarchy(load.SMALL, kept_in=kept)
        moves: collections.Counter[str] = collections.Counter()
        healthy = sent = loops = 0
        memory_mib = folder_mib = 0.0
        for tick in range(ticks):
            sent += load.send(held, tick, seed=1)
            report = held.system_tick()
            ratios = [one.ratio for one in report.homeostasis.values()]
            healthy += all(_LOW <= ratio <= _HIGH for ratio in ratios)
            loops += len(report.moved) - len(set(report.moved))
            moves.update(report.moved)
            if tick == int(ticks * _WARM):
                memory_mib, folder_mib = _memory_mib(), kept.size_bytes() / 2**20
        grown_mib, folder_grown = _memory_mib() - memory_mib, kept.size_bytes() / 2**20 - folder_mib
        loops += sum(count > _CHANNELS for count in moves.values())
        kept.close()
    note = f"{ticks} ticks, {sent} submissions, {sum(moves.values())} moves of circuits"
    actions = ", ".join(f"{count} {name}" for name, count in held.state.actions.counts.items())
    return [
        results.Row("healthy_ticks", healthy / ticks, "share", least=0.95, note=note),
        results.Row("health_actions", sum(held.state.actions.counts.values()), "", note=actions),
        results.Row("queue_loops", float(loops), "", most=0.0),
        results.Row("memory_growth", round(grown_mib, 2), "MiB", most=_MOST_GROWTH_MIB),
        results.Row("folder_growth", round(folder_grown, 2), "MiB", most=_MOST_GROWTH_MIB),
    ]


def _times() -> list[results.Row]:
    terminal.NOTES.print("hierarchy: the time of a tick")
    found = []
    mixture = load.Mixture(agents=4, silence=0.0, burst=0.0)
    for name in ("tick_embedded", "tick_embedded_on_disk"):
        with tempfile.TemporaryDirectory() as folder:
            kept = journal.Journal(pathlib.Path(folder)) if name.endswith("disk") else None
            held = hierarchy.LoRAHierarchy(EMBEDDED, kept_in=kept)
            seconds: dict[str, list[float]] = collections.defaultdict(list)
            for tick in range(_TIMED):
                load.send(held, tick, seed=2, mixture=mixture)
                report = held.system_tick()
                seconds["whole"].append(sum(report.seconds.values()))
                for stage, took in report.seconds.items():
                    seconds[stage].append(took)
            if kept is not None:
                kept.close()
        middle = {stage: statistics.median(took) * 1000 for stage, took in seconds.items()}
        note = ", ".join(f"{stage} {ms:.1f}" for stage, ms in middle.items() if stage != "whole")
        found.append(results.Row(name, round(middle["whole"], 1), "ms", note=note))
    return found


def _kills() -> list[results.Row]:
    terminal.NOTES.print("hierarchy: kills at any moment")
    draw = random.Random(3)
    exact = kills = 0
    for seed in range(_RUNS):
        killing = crashes.Killing(_RUN_TICKS, seed)
        with tempfile.TemporaryDirectory() as name:
            exact += killing.at_random(pathlib.Path(name), draw) == killing.unhurt()
        kills += killing.kills
    note = f"{_RUNS} runs of {_RUN_TICKS} ticks, {kills} kills"
    return [results.Row("restored_exactly", exact / _RUNS, "share", least=1.0, note=note)]


def _memory_mib() -> float:
    pages = int(pathlib.Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
