"""How often the fast track is right: agents that share a planted pattern, and such as share none.

What is counted are the marks of the settlements that `LoRAHierarchy.system_tick` gives, over seeds,
shapes, ranks of the gradients, numbers of agents and levels of noise.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import torch

from benchmarks import results
from benchmarks.hierarchy import planted
from services.hierarchy import hierarchy
from shared import terminal
from shared.hierarchy import messages, weights, wire

SEEDS = 3
_TICKS = 3
"""Of each swarm; in the first the layers are at their start."""
_SHAPES = {
    "64": {f"layers.{at}.q_proj": weights.Shape(64, 64) for at in range(4)},
    "embedded": {f"layers.{at}.q_proj": weights.Shape(256, 256) for at in range(16)},
    "0.5B": {
        f"layers.{at}.{kind}": weights.Shape(896, side)
        for at in range(8)
        for kind, side in (("q_proj", 896), ("v_proj", 128))
    },
}
"""Modules: a few small ones, those of the embedded base, and a sixth of those of half a billion
weights. Layers see a gradient through different A, so that what is left of one in n features is
about 10 / n, with a deviation of 1 / sqrt(n modules rank): few modules of many features hide it."""
_AGENTS = (2, 4, 10)
_RANKS = (4, 32)
"""Of the gradients, which are sums over tokens."""
_NOISES = (0.0, 1.0, 2.0)
"""Norm of each agent's own gradient, of what all share: at 2 it is four fifths of the energy."""


@dataclasses.dataclass(frozen=True)
class _Case:
    name: str
    agents: int
    rank: int
    seed: int


def rows(seeds: int = SEEDS) -> list[results.Row]:
    """Both rows; one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        terminal.NOTES.print("hierarchy: fast track on random and on planted gradients")
        false, random = _share(_cases(seeds), noise=None)
        by_noise = [_share(_cases(seeds), noise) for noise in _NOISES]
    finally:
        torch.set_num_threads(threads)
    true, count = (sum(part) for part in zip(*by_noise, strict=True))
    shares = (
        f"{found / of:.2f} at noise {noise:g}"
        for noise, (found, of) in zip(_NOISES, by_noise, strict=True)
    )
    return [
        results.Row(
            "false_fast_track", false / random, "share", most=0.05, note=f"{random} settlements"
        ),
        results.Row(
            "true_fast_track",
            true / count,
            "share",
            least=0.80,
            note=f"{count} settlements; {', '.join(shares)}",
        ),
    ]


def _cases(seeds: int) -> Iterator[_Case]:
    for name, agents, rank, seed in itertools.product(_SHAPES, _AGENTS, _RANKS, range(seeds)):
        yield _Case(name, agents, rank, seed)


def _share(cases: Iterator[_Case], noise: float | None) -> tuple[int, int]:
    """Settlements on the fast track, and all; without a noise nothing is shared."""
    fast = count = 0
    for case in cases:
        frame = wire.Frame(_SHAPES[case.name])
        draw = torch.Generator().manual_seed(case.seed)
        agents = planted.Agents(hierarchy.LoRAHierarchy(frame), case.agents, case.seed)
        shared = {} if noise is None else planted.common(frame, case.rank, draw)
        lesson = planted.Lesson(shared, 1.0 if noise is None else noise, case.rank)
        for _ in range(_TICKS):
            _, told = agents.tick(dict.fromkeys(range(case.agents), lesson))
            fast += sum(one.mark is messages.Mark.FAST_TRACK for one in told)
            count += len(told)
    return fast, count
