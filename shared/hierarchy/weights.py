"""Low-rank weights and changes of weights, module by module, and what is computed on them.

What a layer adds to a linear layer's output is `x @ A @ B`: the scale is in B. Layers have
different ranks, and A and B have no meaning alone (A R and R^-1 B are the same layer), so that
layers and changes are compared by the products `A @ B`, module by module, and never by A and B.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import torch


@dataclasses.dataclass(frozen=True)
class Shape:
    """Of one adapted linear layer."""

    in_features: int
    out_features: int


@dataclasses.dataclass(frozen=True)
class Factors:
    """A low-rank matrix of shape (in_features, out_features), as `a @ b`."""

    a: torch.Tensor
    """(in_features, rank), float32."""
    b: torch.Tensor
    """(rank, out_features), float32."""

    @property
    def rank(self) -> int:
        """Columns of a; the matrix may be of a lower rank."""
        return self.a.shape[1]

    @property
    def size(self) -> int:
        """Parameters of both."""
        return self.a.numel() + self.b.numel()

    def scaled(self, by: float) -> Factors:
        """The matrix times a number."""
        return Factors(self.a, self.b * by)


Weights = Mapping[str, Factors]
"""A layer, or a change of a layer as a product, by module path."""
Delta = Mapping[str, Factors]
"""A change of a layer's A and B themselves, (dA, dB) by module path, from a known version."""


def inner(one: Factors, other: Factors) -> float:
    """Frobenius inner product of two low-rank matrices, never formed: tr(B1^T A1^T A2 B2)."""
    return float(((one.a.T @ other.a) * (one.b @ other.b.T)).sum())


def dot(one: Weights, other: Weights) -> float:
    """Sum of the inner products over the modules that both have."""
    return sum(inner(one[path], other[path]) for path in one if path in other)


def norm(weights: Weights) -> float:
    """Frobenius norm over all modules."""
    return math.sqrt(max(0.0, dot(weights, weights)))


def cosine(one: Weights, other: Weights) -> float:
    """Mean over the common modules of the cosine between the products; 0 where one is zero.

    Module by module, so that one large module does not speak for all.
    """
    found = []
    for path in one:
        if path in other:
            size = (inner(one[path], one[path]) * inner(other[path], other[path])) ** 0.5
            found.append(inner(one[path], other[path]) / size if size > 0 else 0.0)
    return sum(found) / len(found) if found else 0.0


def summed(parts: Sequence[Weights], shares: Sequence[float]) -> Weights:
    """The weighted sum of products, exactly: factors side by side, so that the ranks add up."""
    paths = dict.fromkeys(path for part in parts for path in part)
    together = {}
    for path in paths:
        here = [(part[path], by) for part, by in zip(parts, shares, strict=True) if path in part]
        together[path] = Factors(
            torch.cat([factors.a for factors, _ in here], dim=1),
            torch.cat([factors.b * by for factors, by in here], dim=0),
        )
    return together


def product_change(before: Weights, delta: Delta) -> Weights:
    """What a change of A and B changes of their product: (A + dA)(B + dB) - A B, of rank 2 r."""
    changed = {}
    for path, step in delta.items():
        was = before[path]
        changed[path] = Factors(
            torch.cat([step.a, was.a + step.a], dim=1), torch.cat([was.b, step.b], dim=0)
        )
    return changed
