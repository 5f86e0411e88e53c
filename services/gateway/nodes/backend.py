"""What the fleet asks of whatever answers: an inference node, or a server that speaks OpenAI's.

Knows nothing about choice, retries or breakers; see `fleet`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from services.gateway import domain


class Backend(Protocol):
    """One that answers. All of it raises `shared.errors` alone."""

    @property
    def address(self) -> str:
        """`host:port`, or a URL."""
        ...

    async def look(self, deadline_s: float) -> domain.Node:
        """How it is.

        Raises:
            errors.UnavailableError: it can't be reached, or says that it does not serve.
        """
        ...

    async def whole(self, asked: domain.Asked, deadline_s: float) -> domain.Whole:
        """Answers in one piece."""
        ...

    def stream(self, asked: domain.Asked, deadline_s: float) -> AsyncGenerator[domain.Piece, None]:
        """Answers piece by piece, `final` in the last; to close it early stops the work."""
        ...

    async def pin(self, card: str) -> str:
        """Brings a card into memory and keeps it there; returns its `name@digest`."""
        ...

    async def unpin(self, card: str) -> str:
        """Lets a card leave memory; returns its `name@digest`."""
        ...

    async def close(self) -> None:
        """Closes its connections."""
        ...
