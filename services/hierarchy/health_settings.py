"""Within which limits the hierarchy is well, and how patient health is."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class HealthSettings:
    """Bounds, as shares where no unit is given."""

    enabled: bool = True
    """Off: findings without actions."""
    window_ticks: int = 100
    """Of rates."""
    entropy_low: float = 0.8
    entropy_high: float = 1.2
    crystallisation: float = 0.5
    amnesia: float = 2.0
    most_queue: int = 10
    """Circuits of a queue for which there is no bandwidth before they are overdue: healthy below.
    """
    most_wait_ticks: int = 5
    """Of a circuit beyond the tick in which its bandwidth let it move: healthy below."""
    most_rejections: float = 0.01
    """Of the circuits that were offered in the window, for want of a place: healthy below."""
    least_signal: float = 0.1
    """Mean absolute alignment of the agents in the window: healthy above."""
    least_fast_track: float = 0.05
    """Of the agents' rounds in the window."""
    most_fast_track: float = 0.2
    most_conflicts: float = 0.05
    least_rounds: int = 20
    """Agents' rounds in the window, from which resonance is judged."""
    least_agents: float = 10.0
    """Agents of a tick on average, from which a high share on the fast track is judged."""
    patience_ticks: int = 5
    """That a layer is at risk before it is rolled back."""
    pause_ticks: int = 20
    """After an action on a layer's threshold, or a roll back, until the next of its kind."""
    threshold_step: float = 0.05
    """By which the screening threshold is raised or lowered."""
    most_shielded: int = 4
    """Steps by which conflicts lower the swarm's threshold in all."""
