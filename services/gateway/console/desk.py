"""What every page is given: the services, the nodes, the settings, and who looks at it."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator
from typing import Protocol

from services.gateway import domain
from services.gateway.calls import peers as connections
from services.gateway.console import sessions
from shared import settings as config


class NodeLike(Protocol):
    """How an inference node is; see `services.gateway.nodes`."""

    @property
    def address(self) -> str:
        """`host:port`."""

    @property
    def id(self) -> str:
        """Its own name; empty while it never answered."""

    @property
    def status(self) -> str:
        """ready, open, half-open or gone."""

    @property
    def base_model(self) -> str:
        """That it serves."""

    @property
    def served(self) -> tuple[str, ...]:
        """Cards that requests may choose, `name@digest`."""

    @property
    def resident(self) -> tuple[str, ...]:
        """Those in memory."""

    @property
    def pinned(self) -> tuple[str, ...]:
        """Those that stay there."""

    @property
    def running(self) -> int:
        """Answers that are being generated."""

    @property
    def waiting(self) -> int:
        """Requests that wait."""

    @property
    def most_rows(self) -> int:
        """Answers generated together at most."""

    @property
    def queue(self) -> int:
        """Requests that may wait."""

    @property
    def revision(self) -> int:
        """Of the card store, the last that it applied."""

    @property
    def store_connected(self) -> bool:
        """Whether it follows the card store."""

    @property
    def swaps(self) -> tuple[domain.Swap, ...]:
        """The latest cards taken in, newest last."""


class Nodes(Protocol):
    """All inference nodes."""

    def stream(
        self, asked: domain.Asked, deadline_s: float | None = None
    ) -> AsyncGenerator[domain.Piece, None]:
        """An answer piece by piece; closing it ends the answer."""

    def nodes(self) -> tuple[NodeLike, ...]:
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
