"""Entropy of the product against numpy, and what homeostasis does when it leaves its budget."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shared.hierarchy import homeostasis, layer_settings, spectrum, weights
from tests.unit.hierarchy import random_weights

OPEN = layer_settings.LayerSettings(use_decay=False, use_screening=False)


def entropy(matrix: torch.Tensor) -> float:
    values = np.linalg.svd(matrix.numpy(), compute_uv=False)
    shares = values / values.sum()
    shares = shares[shares > 1e-12]
    return float(-(shares * np.log(shares)).sum())


@pytest.mark.parametrize(("inside", "rank", "out"), [(40, 6, 30), (9, 24, 12), (16, 64, 16)])
def test_singular_values_are_those_of_the_product(inside: int, rank: int, out: int) -> None:
    generator = torch.Generator().manual_seed(rank)
    one = random_weights.factors(generator, (inside, out), rank)
    one.b[rank // 2] *= 1e-3
    found = spectrum.singular_values(one.a[None], one.b[None])[0].numpy()
    expected = np.linalg.svd(random_weights.product(one).numpy(), compute_uv=False)
    size = min(rank, inside, out)
    np.testing.assert_allclose(found[:size], expected[:size], rtol=1e-5, atol=1e-6 * expected[0])
    assert found[size:].max(initial=0.0) < 1e-5 * expected[0]


@pytest.mark.parametrize(("inside", "rank", "out"), [(40, 6, 30), (16, 64, 16)])
def test_singular_values_are_multiplied_and_directions_stay_when_reshaped(
    inside: int, rank: int, out: int
) -> None:
    generator = torch.Generator().manual_seed(rank)
    one = random_weights.factors(generator, (inside, out), rank)
    u, s, vh = torch.linalg.svd(random_weights.product(one), full_matrices=False)
    b = spectrum.reshaped(one.a[None], one.b[None], lambda values: 1.0 / (1.0 + values))[0]
    expected = (u * (s / (1.0 + s))) @ vh
    found = random_weights.product(weights.Factors(one.a, b))
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-3)


def test_entropy_is_that_of_the_singular_values_of_the_products() -> None:
    held = random_weights.small(OPEN)
    held.update(random_weights.like(held, 1))
    expected = [entropy(random_weights.product(own)) for own in held.weights.values()]
    report = held.maintain_homeostasis()
    assert report.entropy == pytest.approx(sum(expected) / 2, rel=1e-5)
    assert report.ratio == pytest.approx(1.0)
    assert report.optimum == pytest.approx(report.entropy)


def test_a_layer_stays_healthy_when_gradients_are_random() -> None:
    held = random_weights.small(rank=8)
    ratios = []
    for seed in range(200):
        held.update(random_weights.like(held, seed, 0.05))
        ratios.append(held.maintain_homeostasis().ratio)
    healthy = sum(0.8 <= ratio <= 1.2 for ratio in ratios) / len(ratios)
    assert healthy >= 0.95


def test_one_direction_is_healthy_and_so_are_circuits_that_join_it() -> None:
    held = random_weights.small(rank=8)
    generator = torch.Generator().manual_seed(1)
    for size in (1.0, 0.01, 5.0, 1.0):
        held.consolidate_circuit({"q": random_weights.factors(generator, (12, 8), 1, size)})
        for _ in range(5):
            assert held.maintain_homeostasis().ratio == pytest.approx(1.0, abs=0.1)
            held.update({})


def dominated(settings: layer_settings.LayerSettings) -> list[homeostasis.Homeostasis]:
    """A layer of eight even directions, then one gradient that swamps them."""
    held = random_weights.small(settings, rank=8, inertia=0.0)
    for seed in range(20):
        held.update(random_weights.like(held, seed, 0.1))
        held.maintain_homeostasis()
    step = random_weights.like(held, 99, 0.0)
    for path, own in held.weights.items():
        step[path].b[0] = 300.0 * own.b[0]
    held.update(step)
    return [held.maintain_homeostasis() for _ in range(40)]


def test_a_runaway_direction_is_drawn_back_and_less_is_screened_when_it_crystallises() -> None:
    reports = dominated(OPEN)
    assert reports[0].ratio < 0.5
    assert homeostasis.Action.FLATTENED in reports[1].actions
    assert homeostasis.Action.THRESHOLD_RAISED in reports[0].actions
    assert reports[5].threshold > 0.5
    assert reports[-1].entropy > 1.5 * reports[0].entropy
    assert 0.8 <= reports[-1].ratio <= 1.2


def test_only_the_optimum_follows_when_the_budget_is_switched_off() -> None:
    reports = dominated(
        layer_settings.LayerSettings(
            use_decay=False, use_budget=False, use_adaptive_threshold=False
        )
    )
    assert reports[0].ratio < 0.5
    assert reports[-1].entropy == pytest.approx(reports[0].entropy)
    assert reports[-1].optimum < reports[0].optimum
    assert {report.threshold for report in reports} == {0.5}


def test_noise_is_weakened_and_more_is_screened_when_entropy_leaps() -> None:
    held = random_weights.small(OPEN, rank=8, inertia=0.0)
    strong = random_weights.like(held, 1, 0.001)
    for path in strong:
        strong[path].b[0] = 1.0
    for _ in range(10):
        held.update(strong)
        held.maintain_homeostasis()
    held.update(random_weights.like(held, 2, 5.0))
    reports = [held.maintain_homeostasis() for _ in range(40)]
    assert reports[0].ratio > 1.5
    assert reports[0].actions[-1] == homeostasis.Action.THRESHOLD_LOWERED
    assert homeostasis.Action.SHARPENED in reports[1].actions
    assert reports[10].entropy < reports[0].entropy
    assert reports[-1].ratio < 1.2


def test_the_threshold_returns_to_its_base_when_entropy_is_healthy() -> None:
    settings = layer_settings.LayerSettings()
    assert homeostasis.steered(0.6, 0.5, 1.0, settings) == pytest.approx(0.599)
    assert homeostasis.steered(0.5004, 0.5, 1.0, settings) == pytest.approx(0.5)
    assert homeostasis.steered(0.9, 0.5, 0.1, settings) == 0.9
    assert homeostasis.steered(0.1, 0.5, 3.0, settings) == 0.1
