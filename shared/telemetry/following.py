"""How far a follower of the card store's log is, of router and nodes alike."""

from __future__ import annotations

from typing import Protocol

from shared.telemetry import metrics

REVISION = metrics.gauge(
    "skillmesh_watch_revision", "Last revision of the card store's log that was followed"
)
CONNECTED = metrics.gauge("skillmesh_watch_connected", "1 while the line to the store is alive")
FAMILIES = (REVISION, CONNECTED)


class Follower(Protocol):
    """Follows the log."""

    @property
    def revision(self) -> int:
        """The last revision followed."""
        ...

    @property
    def connected(self) -> bool:
        """Whether the line to the store is alive."""
        ...


def reads(follower: Follower) -> dict[metrics.Family, metrics.Read]:
    """For a `metrics.LoopReader`."""
    return {REVISION: lambda: follower.revision, CONNECTED: lambda: follower.connected}
