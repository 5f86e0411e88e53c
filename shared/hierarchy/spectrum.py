"""Singular values of A B that are never formed, their entropy, and how to reshape them.

With A = Q R, the singular values of A B are those of R B, and their squares the eigenvalues of
R B B^T R^T, of the size of the rank. R^T R is A^T A, so that R comes from a Cholesky factorisation:
all is products of (rank, rank) matrices, for many modules at once. In float64, since squares halve
the digits: relative to the largest, singular values are right to about 1e-7.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

_JITTER = 1e-12
"""Of the mean of the diagonal, so that a rank above the number of features has a factorisation."""
_NOTHING = 1e-6
"""Singular values below this share of the largest are rounding."""


def singular_values(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Of the products of a batch of factors.

    Args:
        a: (M, in_features, rank), finite.
        b: (M, rank, out_features), finite.

    Returns:
        (M, rank) float64, falling.
    """
    _, core = _core(a, b)
    squares: torch.Tensor = torch.linalg.eigvalsh(core)
    return squares.flip(1).clamp_min(0.0).sqrt()


def reshaped(
    a: torch.Tensor, b: torch.Tensor, rule: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """B such that the singular values of A B are multiplied by factors; A stays.

    B + R^-1 U diag(f - 1) U^T R B, where U has the left singular vectors of R B.

    Args:
        a: (M, in_features, rank), finite.
        b: (M, rank, out_features), finite.
        rule: gives the factors (M, rank) for the singular values (M, rank), both float64, falling.

    Returns:
        As b, a new tensor.
    """
    upper, core = _core(a, b)
    squares, vectors = torch.linalg.eigh(core)
    values = squares.flip(1).clamp_min(0.0).sqrt()
    left = vectors.flip(2)
    change = torch.where(values > _NOTHING * values[:, :1], rule(values) - 1.0, 0.0)
    step = left @ (change[:, :, None] * (left.mT @ (upper @ b.double())))
    added: torch.Tensor = torch.linalg.solve_triangular(upper, step, upper=True)
    return (b.double() + added).to(b.dtype)


def _core(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """R, and R B B^T R^T, both (M, rank, rank) float64."""
    wide_a, wide_b = a.double(), b.double()
    gram_a, gram_b = wide_a.mT @ wide_a, wide_b @ wide_b.mT
    mean = gram_a.diagonal(dim1=1, dim2=2).mean(1).clamp_min(torch.finfo(torch.float32).tiny)
    lift = (_JITTER * mean)[:, None, None] * torch.eye(a.shape[2], dtype=torch.float64)
    lower = torch.linalg.cholesky(gram_a + lift)
    return lower.mT, lower.mT @ gram_b @ lower


def entropy(values: torch.Tensor) -> torch.Tensor:
    """Spectral entropy in nats: -sum p ln p of p = s / sum s.

    Its exponential is the effective rank (Roy and Vetterli 2007).

    Args:
        values: (..., R) singular values, not negative.

    Returns:
        (...); 0 where all values are 0.
    """
    total = values.sum(-1, keepdim=True)
    shares = values / total.clamp_min(torch.finfo(values.dtype).tiny)
    terms: torch.Tensor = torch.special.entr(shares)
    return terms.sum(-1)
