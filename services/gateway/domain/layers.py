"""The layers that agents share, in full: layers, members, moves of circuits, health."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Layer:
    """One shared layer."""

    level: str
    rank: int
    inertia: float
    """0 to below 1."""
    entropy: float
    entropy_optimum: float
    screened_share: float
    """Of its parameters that are shielded from change (0 to 1)."""
    norm: float
    """Frobenius, of what it adds to the base model."""
    frozen: bool
    parameters: int


@dataclasses.dataclass(frozen=True)
class Member:
    """An agent that takes part."""

    agent: str
    node: str
    submissions: int
    """Taken."""
    refused: int
    """That broke a limit or a rule."""
    examples: int
    is_settled: bool
    seen_at_ms: int
    """Unix time."""


@dataclasses.dataclass(frozen=True)
class Channel:
    """Circuits that wait to move up from one layer to the next."""

    source: str
    target: str
    depth: int
    longest_wait: int
    """Ticks."""
    bandwidth_left: float
    """Parameters."""


@dataclasses.dataclass(frozen=True)
class Measure:
    """One thing that was judged."""

    area: str
    """entropy, bandwidth or resonance."""
    name: str
    where: str
    """Level; empty for the whole."""
    value: float
    verdict: str
    """healthy, warning or critical."""
    message: str
    """What is wrong; empty where nothing is."""


@dataclasses.dataclass(frozen=True)
class Action:
    """What was done about it."""

    tick: int
    kind: str
    where: str
    reason: str


@dataclasses.dataclass(frozen=True)
class SharedLayers:
    """All of it."""

    version: int
    """Of the newest snapshot."""
    tick: int
    waiting: int
    """Submissions that the next tick settles."""
    verdict: str
    layers: tuple[Layer, ...]
    members: tuple[Member, ...]
    channels: tuple[Channel, ...]
    measures: tuple[Measure, ...]
    actions: tuple[Action, ...]
    """The latest, newest first."""
