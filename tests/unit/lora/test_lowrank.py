"""Truncated decompositions against the optimum that numpy finds by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shared import errors
from shared.lora import lowrank


def matrix(rows: int, columns: int, seed: int = 0, decay: float = 0.9) -> torch.Tensor:
    """Random directions with falling singular values."""
    generator = torch.Generator().manual_seed(seed)
    left, _ = torch.linalg.qr(torch.randn(rows, rows, generator=generator, dtype=torch.float64))
    right, _ = torch.linalg.qr(
        torch.randn(columns, columns, generator=generator, dtype=torch.float64)
    )
    values = torch.zeros(rows, columns, dtype=torch.float64)
    for at in range(min(rows, columns)):
        values[at, at] = 5.0 * decay**at
    return left @ values @ right.T


def optimum(delta: torch.Tensor, rank: int) -> float:
    """The least relative Frobenius error of any matrix of that rank (Eckart and Young 1936)."""
    values = np.linalg.svd(delta.double().numpy(), compute_uv=False)
    return float(np.sqrt((values[rank:] ** 2).sum() / (values**2).sum()))


def error(delta: torch.Tensor, factors: lowrank.Factors) -> float:
    rest = delta.double() - factors.lora_a.double() @ factors.lora_b.double()
    return float(rest.norm() / delta.double().norm())


@given(
    rows=st.integers(2, 40),
    columns=st.integers(2, 40),
    rank=st.integers(1, 12),
    seed=st.integers(0, 1000),
)
def test_the_error_is_that_of_the_optimum_when_the_decomposition_is_exact(
    rows: int, columns: int, rank: int, seed: int
) -> None:
    delta = matrix(rows, columns, seed)
    factors = lowrank.exact(delta, rank)
    assert error(delta, factors) - optimum(delta, rank) <= 1e-5
    assert factors.error == pytest.approx(optimum(delta, rank), abs=1e-5)
    assert factors.rank == min(rank, rows, columns)


@pytest.mark.parametrize("decay", [0.7, 0.95, 0.995])
def test_the_energy_is_within_a_hundredth_when_the_decomposition_is_randomised(
    decay: float,
) -> None:
    delta = matrix(300, 200, decay=decay)
    best = lowrank.exact(delta, 16).energy
    found = lowrank.randomised(delta, 16, torch.Generator().manual_seed(1))
    assert best - found.energy <= 0.01 * best
    assert error(delta, found) == pytest.approx(found.error, abs=1e-4)


@pytest.mark.parametrize("norm", [1e-30, 1e-8, 1e25])
def test_the_energy_is_within_a_hundredth_at_any_magnitude(norm: float) -> None:
    delta = matrix(300, 200, decay=0.995)
    delta = (delta * norm / delta.norm()).float()
    best = lowrank.exact(delta, 16).energy
    found = lowrank.randomised(delta, 16, torch.Generator().manual_seed(1))
    assert best - found.energy <= 0.01 * best


@given(inner=st.integers(1, 12), rank=st.integers(1, 14), seed=st.integers(0, 1000))
def test_a_product_is_cut_as_the_matrix_itself_when_only_its_factors_are_given(
    inner: int, rank: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(20, inner, generator=generator)
    right = torch.randn(inner, 15, generator=generator)
    found = lowrank.of_product(left, right, rank)
    assert error(left.double() @ right.double(), found) == pytest.approx(
        optimum(left.double() @ right.double(), rank), abs=1e-5
    )


def test_the_smallest_rank_is_found_when_an_energy_is_asked_for() -> None:
    values = torch.tensor([3.0, 2.0, 1.0, 0.0])
    assert lowrank.rank_for_energy(values, 9 / 14) == 1
    assert lowrank.rank_for_energy(values, 0.65) == 2
    assert lowrank.rank_for_energy(values, 1.0) == 3
    assert lowrank.rank_for_energy(torch.zeros(3), 0.9) == 1


def test_a_matrix_of_zeros_has_factors_of_zeros() -> None:
    factors = lowrank.exact(torch.zeros(4, 3), 2)
    assert factors.energy == 1.0 and not factors.lora_b.any()


@pytest.mark.parametrize("energy", [0.0, -0.1, 1.1])
def test_the_energy_is_named_when_it_is_out_of_range(energy: float) -> None:
    with pytest.raises(errors.InvalidInputError, match="energy"):
        lowrank.rank_for_energy(torch.ones(2), energy)


def test_bad_matrices_and_ranks_are_refused() -> None:
    with pytest.raises(errors.InvalidInputError, match="rank is 0"):
        lowrank.exact(torch.ones(2, 2), 0)
    with pytest.raises(errors.InvalidInputError, match="NaN"):
        lowrank.exact(torch.tensor([[1.0, float("nan")]]), 1)
    with pytest.raises(errors.InvalidInputError, match="two sides"):
        lowrank.exact(torch.ones(3), 1)
