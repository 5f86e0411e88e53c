"""What every page is given: the services, the nodes, the settings, and who looks at it."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator
from typing import Protocol

from services.gateway import domain
from services.gateway.calls import peers as connections
from services.gateway.console import sessions
from shared import settings as config


class Nodes(Protocol):
    """All inference nodes; see `services.gateway.nodes.fleet`."""

    def stream(
        self, asked: domain.Asked, deadline_s: float | None
    ) -> AsyncGenerator[domain.Piece, None]:
        """An answer piece by piece; closing it ends the answer."""

    def nodes(self) -> tuple[domain.NodeState, ...]:
        """How each of them is."""


@dataclasses.dataclass(frozen=True)
class Desk:
    """For one person on one page."""

    peers: connections.Peers
    nodes: Nodes
    settings: config.Settings
    session: sessions.Session
    signs_in: bool
    """Whether tokens are on, so that one may sign out."""
