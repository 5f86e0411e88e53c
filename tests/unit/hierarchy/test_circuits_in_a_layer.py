"""Circuits that come into a layer and leave it, and which channels are active."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shared import errors
from shared.hierarchy import absorption, layer_settings, weights
from tests.unit.hierarchy import random_weights

QUIET = layer_settings.LayerSettings(use_screening=False, use_decay=False)


def piece(seed: int, rank: int, size: float = 1.0) -> dict[str, weights.Factors]:
    generator = torch.Generator().manual_seed(seed)
    return {"q": random_weights.factors(generator, (12, 8), rank, size)}


def test_a_circuit_is_held_exactly_when_the_layer_has_free_channels() -> None:
    held = random_weights.small(rank=5)
    for seed in (1, 2):
        before = random_weights.product(held.weights["q"])
        part = piece(seed, 2)
        assert held.consolidate_circuit(part) == pytest.approx(1.0)
        expected = before + random_weights.product(part["q"])
        torch.testing.assert_close(
            random_weights.product(held.weights["q"]), expected, atol=1e-5, rtol=1e-4
        )
    lengths = held.weights["q"].a.norm(dim=0)
    assert float(lengths.max()) < 1.1  # Scale goes to B: columns are as long as at the start.
    assert torch.equal(held.weights["v"].b, torch.zeros(5, 20))


def test_a_circuit_is_screened_from_then_on_also_where_nothing_moved_before() -> None:
    held = random_weights.small(rank=5)
    held.consolidate_circuit(piece(1, 2))
    phases = held.phases()["q"]
    used = held.weights["q"].b.norm(dim=1) > 0
    assert int(used.sum()) == 2
    assert float(phases.a[:, used].min()) == 1.0 and float(phases.b[used].min()) == 1.0
    assert float(phases.a[:, ~used].max()) == 0.0


def test_a_small_circuit_stays_screened_when_large_ones_join_it() -> None:
    held = random_weights.small(rank=6)
    for seed, size in enumerate((0.1, 10.0, 1.0)):
        held.consolidate_circuit(piece(seed, 1, size))
    used = held.weights["q"].b.norm(dim=1) > 0
    assert int(used.sum()) == 3
    assert float(held.phases()["q"].b[used].min()) == 1.0


def test_a_full_layer_keeps_the_best_approximation_near_its_present_factors() -> None:
    held = random_weights.small(QUIET, inertia=0.0)
    held.update(random_weights.like(held, 1))
    before = held.weights["q"]
    part = piece(2, 2, 0.3)
    total = random_weights.product(before) + random_weights.product(part["q"])
    squares = np.linalg.svd(total.numpy(), compute_uv=False) ** 2
    kept = held.consolidate_circuit(part)
    after = held.weights["q"]
    assert kept == pytest.approx(squares[:4].sum() / squares.sum(), abs=1e-6)
    rest = float((total - random_weights.product(after)).square().sum())
    assert 1.0 - rest / squares.sum() == pytest.approx(kept, abs=1e-5)
    assert float((after.a - before.a).norm() / before.a.norm()) < 0.3
    assert float((after.b - before.b).norm() / before.b.norm()) < 0.6


def test_a_fit_leaves_factors_alone_when_the_circuit_is_nothing() -> None:
    held = random_weights.small(QUIET, inertia=0.0)
    held.update(random_weights.like(held, 1))
    before = held.weights["q"]
    found, lost = absorption._fit(before.a, before)
    assert lost == pytest.approx(0.0, abs=1e-9)
    torch.testing.assert_close(found.a, before.a, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.b, before.b, atol=1e-5, rtol=1e-4)


def test_a_circuit_of_more_channels_than_the_layer_has_is_fitted() -> None:
    held = random_weights.small()
    kept = held.consolidate_circuit(piece(1, 7))
    assert 0.5 < kept < 1.0


def test_nothing_is_lost_when_there_is_nothing_to_take_in() -> None:
    held = random_weights.small()
    before = held.weights
    assert held.consolidate_circuit({}) == 1.0
    assert held.weights is before
    nothing = weights.Factors(torch.zeros(12, 2), torch.zeros(2, 8))
    assert held.consolidate_circuit({"q": nothing}) == 1.0
    assert not bool(held.weights["q"].b.any())


def test_a_move_preserves_the_sum_when_one_layer_releases_what_another_takes() -> None:
    low, high = random_weights.small(rank=3), random_weights.small(rank=6)
    low.update(random_weights.like(low, 1))
    before = random_weights.product(low.weights["q"]) + random_weights.product(high.weights["q"])
    held = low.weights["q"]
    channels = (0, 2)
    circuit = weights.Factors(held.a[:, channels], held.b[list(channels),])
    high.consolidate_circuit({"q": circuit})
    low.release({"q": channels})
    after = random_weights.product(low.weights["q"]) + random_weights.product(high.weights["q"])
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)
    fresh = random_weights.small(rank=3).weights["q"]
    assert torch.equal(low.weights["q"].a[:, channels], fresh.a[:, channels])
    assert float(low.phases()["q"].b[list(channels),].max()) == 0.0
    assert torch.equal(low.weights["q"].b[1], held.b[1])


def test_channels_that_a_layer_lacks_are_not_released() -> None:
    held = random_weights.small()
    with pytest.raises(errors.InvalidInputError, match="rank 4"):
        held.release({"q": (4,)})
    with pytest.raises(errors.NotFoundError):
        held.release({"z": (0,)})


def test_channels_are_active_when_they_contribute_to_the_output() -> None:
    held = random_weights.small(QUIET, inertia=0.0)
    held.update(random_weights.like(held, 1))
    a = held.weights["q"].a
    # Inputs that the first column of A does not see.
    basis, _ = torch.linalg.qr(a)
    inputs = torch.randn(3, 7, 12, generator=torch.Generator().manual_seed(1))
    blind = inputs - inputs @ torch.outer(basis[:, 0], basis[:, 0])
    assert held.compute_activity_mask({"q": inputs})["q"].tolist() == [True] * 4
    assert held.compute_activity_mask({"q": blind})["q"].tolist() == [False, True, True, True]
    assert held.activity["q"].tolist() == [False, True, True, True]
    assert held.activity["v"].tolist() == [False] * 4
    held.release({"q": (1,)})
    assert held.activity["q"].tolist() == [False, False, True, True]
