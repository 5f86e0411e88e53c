"""The benchmark of the fast track: agents see what was planted, and rows can fail."""

from __future__ import annotations

import pytest
import torch

from benchmarks.hierarchy import planted, resonance_rows
from services.hierarchy import hierarchy, resonance
from shared.hierarchy import levels, weights, wire

FRAME = wire.Frame({"layers.0.q_proj": weights.Shape(32, 24)})


def test_every_layer_learns_one_and_the_same_gradient() -> None:
    held = hierarchy.LoRAHierarchy(FRAME)
    agents = planted.Agents(held, 1, seed=0)
    shared = planted.common(FRAME, 3, torch.Generator().manual_seed(1))
    seen = []
    kept = held.submit
    held.submit = lambda sent: seen.append(sent) or kept(sent)  # type: ignore[method-assign, func-returns-value]
    agents.tick({0: planted.Lesson(shared, noise=0.0, rank=3)}, rate=0.5)
    path, pattern = "layers.0.q_proj", shared["layers.0.q_proj"]
    start = hierarchy.LoRAHierarchy(FRAME).snapshot().layers[levels.Level.SWARM][path].a
    torch.testing.assert_close(seen[0].shared[levels.Level.SWARM][path].b, 0.5 * start.T @ pattern)
    private = seen[0].private[levels.Level.AGENT][path]
    assert weights.inner(private, weights.Factors(pattern, torch.eye(24))) > 0


def test_patterns_have_their_rank_and_length() -> None:
    found = planted.pattern(weights.Shape(20, 30), 4, torch.Generator().manual_seed(0))
    assert int(torch.linalg.matrix_rank(found)) == 4
    assert float(found.norm()) == pytest.approx(1.0, rel=1e-5)


def test_rows_reach_their_targets_on_small_modules_and_miss_them_when_chance_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resonance_rows, "_SHAPES", {"64": resonance_rows._SHAPES["64"]})
    monkeypatch.setattr(resonance_rows, "_AGENTS", (3,))
    good = {row.name: row for row in resonance_rows.rows(seeds=1)}
    assert good["false_fast_track"].reached and good["true_fast_track"].reached
    lax, strict = ({"deviations": value} for value in (-100.0, 1e6))
    kept = resonance.VerticalResonance

    for changed, row in ((lax | {"floor": -1.0}, "false_fast_track"), (strict, "true_fast_track")):
        settings = resonance.VerticalSettings(chance=1e-300, **changed)
        monkeypatch.setattr(resonance, "VerticalResonance", lambda _, s=settings: kept(s))
        found = {one.name: one for one in resonance_rows.rows(seeds=1)}
        assert found[row].reached is False
