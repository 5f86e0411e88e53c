"""One agent of several that wants to count for more than one."""

from __future__ import annotations

import pytest

from services.hierarchy import hierarchy
from shared.hierarchy import messages, weights
from shared.hierarchy.levels import Level
from tests.unit.hierarchy import making

HONEST = ("ada", "bob", "cyd", "dot")


def moved(hostile: list[messages.Submission]) -> weights.Weights:
    """What a tick changes of the swarm by four agents that agree, and one more."""
    held = hierarchy.LoRAHierarchy(making.FRAME)
    before = held.snapshot().layers[Level.SWARM]
    for agent in HONEST:
        held.submit(making.submission(agent, seed=1))
    for sent in hostile:
        held.submit(sent)
    held.system_tick()
    return weights.summed([held.snapshot().layers[Level.SWARM], before], [1.0, -1.0])


@pytest.mark.parametrize("scale", [0.01, 1.0, 1e5])
def test_swarm_moves_as_without_it_when_one_sends_often_or_loud(scale: float) -> None:
    alone = moved([])
    hostile = [making.submission("eve", sequence, seed=7, scale=scale) for sequence in range(1, 9)]
    found = moved(hostile)
    assert weights.cosine(found, alone) > 0.95
    assert 0.8 < weights.norm(found) / weights.norm(alone) < 1.25


def test_the_same_said_many_times_counts_as_said_once() -> None:
    once = moved([making.submission("eve", 1, seed=7)])
    often = moved([making.submission("eve", sequence, seed=7) for sequence in range(1, 9)])
    assert weights.cosine(once, often) > 0.99
    assert weights.norm(once) == pytest.approx(weights.norm(often), rel=0.1)
