"""An inference node of this project, over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from services.gateway import domain
from services.gateway.calls import inference
from shared import errors
from shared.rpc import client
from shared.security import protection as protections


class GrpcNode:
    """A `backend.Backend` on a connection of its own."""

    def __init__(self, address: str, protection: protections.Protection = protections.OPEN) -> None:
        """Takes `host:port`; connects on first use."""
        self.address = address
        self._channel = client.channel(address, protection=protection)
        self._calls = inference.InferenceCalls(self._channel, address)

    async def look(self, deadline_s: float) -> domain.Node:
        """Its status, where its health is that it serves; see `backend.Backend`."""
        node, serves = await asyncio.gather(
            self._calls.status(deadline_s), client.is_serving(self._channel, deadline_s)
        )
        if not serves:
            raise errors.UnavailableError(f"node {self.address} says that it does not serve")
        return node

    async def whole(self, asked: domain.Asked, deadline_s: float) -> domain.Whole:
        """Answers in one piece."""
        return await self._calls.whole(asked, deadline_s)

    def stream(self, asked: domain.Asked, deadline_s: float) -> AsyncGenerator[domain.Piece, None]:
        """Answers piece by piece."""
        return self._calls.stream(asked, deadline_s)

    async def pin(self, card: str) -> str:
        """Keeps a card in memory."""
        return await self._calls.pin(card)

    async def unpin(self, card: str) -> str:
        """Lets a card leave memory."""
        return await self._calls.unpin(card)

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close(None)
