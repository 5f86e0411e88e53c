"""Random factors and layers for the tests of the hierarchy."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from shared.hierarchy import layer, layer_settings, levels, weights


def factors(
    generator: torch.Generator, sides: tuple[int, int], rank: int, size: float = 1.0
) -> weights.Factors:
    return weights.Factors(
        torch.randn(sides[0], rank, generator=generator) * size,
        torch.randn(rank, sides[1], generator=generator) * size,
    )


def change(
    seed: int, paths: Iterable[str], sides: tuple[int, int], rank: int, size: float = 1.0
) -> dict[str, weights.Factors]:
    generator = torch.Generator().manual_seed(seed)
    return {path: factors(generator, sides, rank, size) for path in paths}


def small(
    settings: layer_settings.LayerSettings | None = None,
    inertia: float = 0.5,
    rank: int = 4,
    shapes: dict[str, weights.Shape] | None = None,
) -> layer.DynamicLoRALayer:
    """A layer of two modules of different shapes."""
    shapes = shapes or {"q": weights.Shape(12, 8), "v": weights.Shape(12, 20)}
    return layer.DynamicLoRALayer(
        levels.Level.SWARM, shapes, levels.Spec(rank, inertia), settings, seed=3
    )


def like(held: layer.DynamicLoRALayer, seed: int, size: float = 1.0) -> dict[str, weights.Factors]:
    """A random gradient of a layer."""
    generator = torch.Generator().manual_seed(seed)
    return {
        path: factors(generator, (len(own.a), own.b.shape[1]), own.rank, size)
        for path, own in held.weights.items()
    }


def product(weight: weights.Factors) -> torch.Tensor:
    return weight.a.double() @ weight.b.double()
