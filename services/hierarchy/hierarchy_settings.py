"""The constants of the hierarchy's tick, and which of its stages work."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from services.hierarchy import aggregation, channel_recurrence, health_settings, resonance
from shared.hierarchy import layer_settings, levels, migration_queue


@dataclasses.dataclass(frozen=True)
class Switches:
    """Stages of a tick; one that is off leaves everything as it was."""

    homeostasis: bool = True
    vertical: bool = True
    horizontal: bool = True
    updates: bool = True
    detection: bool = True
    migration: bool = True
    health: bool = True


@dataclasses.dataclass(frozen=True)
class HierarchySettings:
    """Of `LoRAHierarchy`."""

    switches: Switches = dataclasses.field(default_factory=Switches)
    layer: layer_settings.LayerSettings = dataclasses.field(
        default_factory=layer_settings.LayerSettings
    )
    vertical: resonance.VerticalSettings = dataclasses.field(
        default_factory=resonance.VerticalSettings
    )
    horizontal: resonance.HorizontalSettings = dataclasses.field(
        default_factory=resonance.HorizontalSettings
    )
    aggregation: aggregation.AggregationSettings = dataclasses.field(
        default_factory=aggregation.AggregationSettings
    )
    recurrence: channel_recurrence.RecurrenceSettings = dataclasses.field(
        default_factory=channel_recurrence.RecurrenceSettings
    )
    queue: migration_queue.QueueSettings = dataclasses.field(
        default_factory=migration_queue.QueueSettings
    )
    shares: Mapping[levels.Level, float] = dataclasses.field(
        default_factory=lambda: dict(migration_queue.SHARES)
    )
    """Of a layer's parameters that may move out of it in a tick."""
    outer_rate: float = 1.7
    """What the agents' combined change is multiplied by (server learning rate of FedOpt: Reddi et
    al. 2021): rounds are short, and each ends well before where it is heading."""
    use_breadth: bool = True
    """Off: a mean of agents that learned different things moves a layer by an N-th of each; see
    `aggregation.Combined.breadth`."""
    health: health_settings.HealthSettings = dataclasses.field(
        default_factory=health_settings.HealthSettings
    )

    kept_snapshots: int = 8
    """The newest ones; the last healthy one is kept besides."""
    most_stale: int = 8
    """Versions that a submission's snapshot may be behind."""
    most_agents: int = 1024
    most_settlements: int = 64
    """Of one agent that are kept until it takes them."""
    most_waiting: int = 256
    """Submissions, and offered circuits, that may wait for a tick."""
    most_waiting_per_agent: int = 8
    most_piece_norm: float = 10.0
    """Frobenius norm of a circuit in one module; a larger one is not taken from an agent."""
    most_piece_share: float = 2.0
    """The same beside the norm of the shared layers' sum in that module."""
    free_piece_norm: float = 1.0
    """Taken whatever the shared layers hold: at first they hold nothing."""
