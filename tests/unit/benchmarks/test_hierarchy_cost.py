"""The benchmarks of the stack on a tiny model: what they count, and that they can fail."""

from __future__ import annotations

import pytest

from benchmarks.hierarchy import determinism, latency, stacks
from shared.hierarchy import levels
from tests import tiny_model


def test_no_answer_differs_when_versions_come_and_go():
    found = determinism.counted(tiny_model.tiny_base, 40, dict(stacks.SMALL_RANKS))
    assert (found.generations, found.different) == (40, 0)
    assert found.versions >= 2 and found.updates >= 4 and found.steps > 0
    assert found.distinct >= 2


def test_difference_is_counted_when_weights_change_under_a_version(monkeypatch):
    """With a source that gives other weights each time, answers are not those of their version."""
    made, calls = stacks.stacked, iter(range(1, 1000))

    def other(model, version, *rest, **more):
        return made(model, version, *rest, seed=next(calls), **more)

    monkeypatch.setattr(stacks, "stacked", other)
    found = determinism.counted(tiny_model.tiny_base, 20, dict(stacks.SMALL_RANKS))
    assert found.different > 0


def test_latency_and_share_are_told_of_the_full_stack():
    base = tiny_model.tiny_base()
    rows = {row.name: row for row in latency.measured(base, (1, 2), 2, 2)}
    assert {"latency_times_base", "prompt_times_base", "adapters_of_base"} <= rows.keys()
    assert {"latency_times_base_b2", "prompt_times_base_b2"} <= rows.keys()
    parameters = sum(
        one.size
        for layer in stacks.stacked(base.model, ranks=stacks.FULL_RANKS).layers.values()
        for one in layer.values()
    )
    share = parameters / base.model.num_parameters()
    assert rows["adapters_of_base"].value == pytest.approx(share)
    assert rows["latency_times_base"].most == 1.2 and rows["latency_times_base"].value > 0
    assert sum(stacks.FULL_RANKS.values()) == sum(
        spec.rank for spec in levels.DEFAULT_SPECS.values()
    )
