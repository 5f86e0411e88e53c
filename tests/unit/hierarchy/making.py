"""Small hierarchies, submissions and circuits for tests, all from seeds."""

from __future__ import annotations

import torch

from benchmarks.hierarchy import load
from services.hierarchy import hierarchy as hierarchies
from services.hierarchy import hierarchy_settings
from shared.hierarchy import levels, messages, weights
from shared.hierarchy.levels import Level

FRAME = load.SMALL
SHAPES, SPECS = FRAME.shapes, FRAME.specs
SEED = 3
"""Of the random load."""


def hierarchy(**changed: object) -> hierarchies.LoRAHierarchy:
    settings = hierarchy_settings.HierarchySettings(**changed)  # type: ignore[arg-type]
    return hierarchies.LoRAHierarchy(FRAME, settings)


def loaded(ticks: int, **changed: object) -> hierarchies.LoRAHierarchy:
    """After some ticks of random load."""
    held = hierarchy(**changed)
    for at in range(ticks):
        load.send(held, at, SEED)
        held.system_tick()
    return held


def same(one: messages.Snapshot, other: messages.Snapshot) -> bool:
    return all(
        torch.equal(one.layers[level][path].a, other.layers[level][path].a)
        and torch.equal(one.layers[level][path].b, other.layers[level][path].b)
        for level in levels.SHARED
        for path in SHAPES
    )


def factors(
    shape: weights.Shape, rank: int, draw: torch.Generator, scale: float = 0.1
) -> weights.Factors:
    return weights.Factors(
        torch.randn(shape.in_features, rank, generator=draw) * scale,
        torch.randn(rank, shape.out_features, generator=draw) * scale,
    )


def layer(rank: int, draw: torch.Generator, scale: float = 0.1) -> weights.Weights:
    return {path: factors(shape, rank, draw, scale) for path, shape in SHAPES.items()}


def circuit(
    name: str = "ada:1", seed: int = 0, level: Level = Level.AGENT, **changed: object
) -> messages.Circuit:
    draw = torch.Generator().manual_seed(seed)
    channels = {"layers.0.q_proj": (2, 0), "layers.1.q_proj": (1,)}
    pieces = {path: factors(SHAPES[path], len(of), draw) for path, of in channels.items()}
    fields: dict[str, object] = {
        "id": name,
        "agent": name.split(":")[0],
        "level": level,
        "top": Level.DOMAIN,
        "channels": channels,
        "pieces": pieces,
        "autocorrelation": 0.1 + 0.7,
        "hits": 5,
    }
    return messages.Circuit(**(fields | changed))  # type: ignore[arg-type]


def submission(
    agent: str = "ada",
    sequence: int = 1,
    seed: int = 0,
    *,
    version: int = 0,
    scale: float = 0.01,
    circuits: tuple[messages.Circuit, ...] = (),
) -> messages.Submission:
    draw = torch.Generator().manual_seed(seed)
    return messages.Submission(
        agent=agent,
        sequence=sequence,
        version=version,
        shared={level: layer(SPECS[level].rank, draw, scale) for level in levels.SHARED},
        private={level: layer(2 * SPECS[level].rank, draw, scale) for level in levels.PRIVATE},
        circuits=circuits,
        examples=3,
    )
