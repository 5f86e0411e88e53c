"""Random layers of the hierarchy for a model: strong enough that each changes its answers."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from shared.hierarchy import levels, stack, weights

SMALL_RANKS: Mapping[levels.Level, int] = {
    levels.Level.FOUNDATION: 5,
    levels.Level.DOMAIN: 4,
    levels.Level.SWARM: 3,
    levels.Level.AGENT: 2,
    levels.Level.CONTEXT: 1,
}
FULL_RANKS = {level: spec.rank for level, spec in levels.DEFAULT_SPECS.items()}


def layer(
    model: torch.nn.Module,
    rank: int,
    generator: torch.Generator,
    kinds: tuple[str, ...] = levels.DEFAULT_KINDS,
    size: float = 0.3,
) -> weights.Weights:
    """A and B normal with a standard deviation."""
    found = {}
    for path, module in model.named_modules():
        path = path.removesuffix(".base")  # Where a card has wrapped it already.
        if isinstance(module, torch.nn.Linear) and path.rpartition(".")[2] in kinds:
            found[path] = weights.Factors(
                torch.randn(module.in_features, rank, generator=generator) * size,
                torch.randn(rank, module.out_features, generator=generator) * size,
            )
    return found


def stacked(
    model: torch.nn.Module,
    version: int = 1,
    ranks: Mapping[levels.Level, int] = SMALL_RANKS,
    seed: int | None = None,
    size: float = 0.3,
) -> stack.Stack:
    """All five layers; every version is another, unless a seed says which."""
    generator = torch.Generator().manual_seed(version if seed is None else seed)
    return stack.Stack(
        version,
        {level: layer(model, rank, generator, size=size) for level, rank in ranks.items()},
    )
