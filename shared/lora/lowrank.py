"""The best matrices of a low rank: truncated singular value decompositions, exact and randomised.

Knows nothing about cards or models. Orientation is a card's: a change of weights is (in, out), and
its factors are A (in, rank) and B (rank, out).
"""

from __future__ import annotations

import dataclasses
import math

import torch

from shared import errors

_LEAST_OVERSAMPLING = 10
_MOST_ITERATIONS = 32
_LEAST_GAIN = 2e-4
"""A power iteration that finds less than this share of energy more is the last."""


@dataclasses.dataclass(frozen=True)
class Factors:
    """`lora_a @ lora_b`, each with the same share of the singular values."""

    lora_a: torch.Tensor
    """(in_features, rank), float32."""
    lora_b: torch.Tensor
    """(rank, out_features), float32."""
    energy: float
    """Share of the squared Frobenius norm that is kept, 0 to 1; 1 for a matrix of zeros."""

    @property
    def rank(self) -> int:
        """Columns of A."""
        return self.lora_a.shape[1]

    @property
    def error(self) -> float:
        """Relative Frobenius error: of what is left out, over the whole.

        For the truncated decomposition that is the square root of the energy left out (Eckart and
        Young 1936).
        """
        return math.sqrt(max(0.0, 1.0 - self.energy))


def exact(delta: torch.Tensor, rank: int, energy: float = 1.0) -> Factors:
    """The best approximation of a rank, by a full decomposition in float64.

    Args:
        delta: (in_features, out_features), any dtype, finite.
        rank: at least 1; more than the matrix has is cut to what it has.
        energy: a lower rank will do that keeps this share of the squared norm, above 0, at most 1.

    Raises:
        errors.InvalidInputError: rank or energy is out of range, or the matrix holds NaN or
            infinity.
    """
    wide = _checked(delta, rank)
    u_I_K, s_K, vh_K_O = torch.linalg.svd(wide, full_matrices=False)
    enough = rank_for_energy(s_K, energy)
    return _factors(u_I_K, s_K, vh_K_O, min(rank, enough), float(s_K.square().sum()))


def randomised(
    delta: torch.Tensor, rank: int, generator: torch.Generator, energy: float = 1.0
) -> Factors:
    """Nearly the best, much faster for a large matrix and a small rank.

    Halko, Martinsson and Tropp 2011, algorithms 4.4 and 5.1: a random sketch of twice the rank,
    made sharper by power iterations until they find no more. Few are needed where the singular
    values fall, many where they are nearly equal.

    Args:
        delta: (in_features, out_features), any dtype, finite.
        rank: at least 1.
        generator: source of the sketch; the same state gives the same factors.
        energy: as for `exact`.

    Raises:
        errors.InvalidInputError: as for `exact`.
    """
    wide = _checked(delta, rank, torch.float32)
    columns = min(rank + max(rank, _LEAST_OVERSAMPLING), *wide.shape)
    sketch_O_C = torch.randn(wide.shape[1], columns, generator=generator, dtype=wide.dtype)
    found = 0.0
    for _ in range(_MOST_ITERATIONS):
        basis_I_C, _ = torch.linalg.qr(wide @ sketch_O_C)
        inner_C_O = basis_I_C.T @ wide
        values_C = torch.linalg.svdvals(inner_C_O).double()  # Squares of float32 may be nothing.
        before, found = found, float(values_C[:rank].square().sum())
        if found - before <= _LEAST_GAIN * found:
            break
        sketch_O_C, _ = torch.linalg.qr(inner_C_O.T)
    u_C_K, s_K, vh_K_O = torch.linalg.svd(inner_C_O, full_matrices=False)
    total = float(wide.double().square().sum())
    enough = rank_for_energy(s_K, energy, total)
    return _factors(basis_I_C @ u_C_K, s_K, vh_K_O, min(rank, enough), total)


def of_product(left: torch.Tensor, right: torch.Tensor, rank: int) -> Factors:
    """The best approximation of `left @ right` without ever making the product.

    Args:
        left: (in_features, inner).
        right: (inner, out_features); cheap where `inner` is small.
        rank: at least 1.

    Raises:
        errors.InvalidInputError: as for `exact`.
    """
    basis_I_N, left_N_N = torch.linalg.qr(_checked(left, rank))
    basis_O_N, right_N_N = torch.linalg.qr(_checked(right.T, rank))
    u_N_K, s_K, vh_K_N = torch.linalg.svd(left_N_N @ right_N_N.T, full_matrices=False)
    total = float(s_K.square().sum())
    return _factors(basis_I_N @ u_N_K, s_K, vh_K_N @ basis_O_N.T, rank, total)


def rank_for_energy(
    singular_values: torch.Tensor, energy: float, total: float | None = None
) -> int:
    """The smallest rank that keeps a share of the squared Frobenius norm; at least 1.

    Args:
        singular_values: (K,), falling.
        energy: the share, above 0, at most 1; for 1 all values but zeros are kept.
        total: the squared norm; None where all singular values are given.

    Raises:
        errors.InvalidInputError: the share is out of range.
    """
    if not 0.0 < energy <= 1.0:
        raise errors.InvalidInputError(f"energy is {energy}; give a share above 0, at most 1")
    squares = singular_values.double().square()
    total = float(squares.sum()) if total is None else total
    if total == 0.0:
        return 1
    kept = squares.cumsum(0) / total
    # The last bits of a sum must not ask for a rank more.
    enough = (kept >= energy - 1e-12).nonzero()
    return int(enough[0, 0]) + 1 if len(enough) else len(squares)


def _checked(matrix: torch.Tensor, rank: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    if rank < 1:
        raise errors.InvalidInputError(f"rank is {rank}; it must be at least 1")
    if matrix.ndim != 2:
        raise errors.InvalidInputError(f"a matrix has two sides, not shape {tuple(matrix.shape)}")
    wide = matrix.detach().to(dtype)
    if not bool(torch.isfinite(wide).all()):
        raise errors.InvalidInputError("the matrix holds NaN or infinite values")
    return wide


def _factors(
    u_I_K: torch.Tensor, s_K: torch.Tensor, vh_K_O: torch.Tensor, rank: int, total: float
) -> Factors:
    root_R = s_K[:rank].sqrt()
    kept = float(s_K[:rank].double().square().sum())
    return Factors(
        lora_a=(u_I_K[:, :rank] * root_R).float().contiguous(),
        lora_b=(root_R[:, None] * vh_K_O[:rank]).float().contiguous(),
        energy=min(1.0, kept / total) if total > 0.0 else 1.0,
    )
