"""How a layer takes in a circuit at its own rank: weakest channels first, else the best fit.

Knows one module at a time and nothing about phases.
"""

from __future__ import annotations

import dataclasses

import torch

from shared.hierarchy import weights
from shared.lora import lowrank

_LEAST_SHARE = 0.1
"""The fit keeps A this well conditioned."""


@dataclasses.dataclass(frozen=True)
class Absorbed:
    """A module with a circuit in it."""

    factors: weights.Factors
    """Of the rank of the module."""
    channels: list[int]
    """Those that hold the circuit; all where it could not be kept apart."""
    energy: float
    """Squared Frobenius norm of what was to be held."""
    lost: float
    """Of what is not."""


def strengths(factors: weights.Factors) -> torch.Tensor:
    """Frobenius norm of each rank channel, (rank,): |column of A| |row of B|."""
    return factors.a.square().sum(0).sqrt() * factors.b.square().sum(1).sqrt()


def activity(factors: weights.Factors, x: torch.Tensor, share: float) -> torch.Tensor:
    """Which rank channels contribute to x A B: (rank,) bool.

    A channel's contribution is the root mean square of x A_j over tokens times |B_j|.

    Args:
        factors: of the module.
        x: what goes into it, (..., in_features).
        share: of the strongest channel's contribution, from which a channel counts as active.
    """
    tokens = x.detach().reshape(-1, x.shape[-1]).to(factors.a.dtype)
    size = (tokens @ factors.a).square().mean(0).sqrt() * factors.b.square().sum(1).sqrt()
    return (size >= share * size.max()) & (size > 0)


def absorb(
    held: weights.Factors, piece: weights.Factors, start: torch.Tensor, weak_energy: float
) -> Absorbed:
    """Factors of `held + piece`, at the rank of held.

    If its weakest channels carry at most `weak_energy` of the sum's energy, the piece takes their
    place and the sum is exact but for them. Else it is the best approximation of that rank (Eckart
    and Young 1936), with the factors nearest to the present ones: A is projected onto the new
    column space, so that what does not change leaves A and B as they are.

    Args:
        held: the module's, finite.
        piece: of any rank, finite.
        start: (in_features, rank), start values of A: new columns get their lengths.
        weak_energy: 0 to 1.
    """
    both = weights.Factors(torch.cat([held.a, piece.a], dim=1), torch.cat([held.b, piece.b], dim=0))
    energy = max(0.0, weights.inner(both, both))
    if piece.rank <= held.rank:
        channels = sorted(strengths(held).argsort(stable=True)[: piece.rank].tolist())
        weak = weights.Factors(held.a[:, channels], held.b[channels])
        lost = max(0.0, weights.inner(weak, weak))
        if lost <= weak_energy * energy:
            return Absorbed(_put(held, piece, start, channels), channels, energy, lost)
    fitted, lost = _fit(held.a, both)
    return Absorbed(fitted, list(range(held.rank)), energy, min(lost, energy))


def _put(
    held: weights.Factors, piece: weights.Factors, start: torch.Tensor, channels: list[int]
) -> weights.Factors:
    a, b = held.a.clone(), held.b.clone()
    length = piece.a.norm(dim=0)
    scale = torch.where(length > 0, start[:, channels].norm(dim=0) / length, 0.0)
    a[:, channels] = torch.where(scale > 0, piece.a * scale, start[:, channels])
    b[channels] = torch.where(scale > 0, piece.b.T / scale, 0.0).T
    return weights.Factors(a, b)


def _fit(present: torch.Tensor, both: weights.Factors) -> tuple[weights.Factors, float]:
    """The best factors of the rank of `present`, and the squared norm of what they leave out."""
    best = lowrank.of_product(both.a, both.b, present.shape[1])
    size = best.lora_a.double().norm(dim=0)
    some = size > 1e-6 * size.max().clamp_min(torch.finfo(torch.float32).tiny)
    basis = (best.lora_a.double() / size)[:, some]
    rest = size[some][:, None] * best.lora_b.double()[some]
    left, values, right = torch.linalg.svd(basis.T @ present.double(), full_matrices=False)
    floor = _LEAST_SHARE * float(values.max()) if len(values) else 0.0
    values = values.clamp_min(floor or 1.0)
    a = basis @ (left * values) @ right
    b = right.T @ ((left.T @ rest) / values[:, None])
    total = max(0.0, weights.inner(both, both))
    return weights.Factors(a.float(), b.float()), (1.0 - best.energy) * total
