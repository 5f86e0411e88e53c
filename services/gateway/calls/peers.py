"""Connections to the services of one cluster."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc.aio

from services.gateway.calls import (
    agents,
    distiller,
    factory,
    hierarchy,
    inference,
    router,
    store,
)
from shared import errors
from shared import settings as config
from shared.rpc import client
from shared.security import protection as protections


class Peers:
    """The services of one cluster; `async with connected(settings)` opens and closes them."""

    def __init__(self, settings: config.Settings) -> None:
        """Takes the addresses; connects on first use."""
        self._protection = protections.Protection.configured(settings)
        self._channels: list[grpc.aio.Channel] = []
        node = self._channel(settings.inference.address)
        self.inference = inference.InferenceCalls(node)
        self.agents = agents.AgentsCalls(node)
        self.factory = factory.FactoryCalls(self._channel(settings.factory.address))
        self.distiller = distiller.DistillerCalls(self._channel(settings.distiller.address))
        self.store = store.StoreCalls(self._channel(settings.card_store.address))
        self.router = router.RouterCalls(self._channel(settings.router.address))
        self.hierarchy = hierarchy.HierarchyCalls(self._channel(settings.hierarchy.address))

    async def close(self) -> None:
        """Closes the connections."""
        for channel in self._channels:
            await channel.close(None)

    def _channel(self, address: str) -> grpc.aio.Channel:
        self._channels.append(client.channel(address, protection=self._protection))
        return self._channels[-1]


@contextlib.asynccontextmanager
async def connected(settings: config.Settings) -> AsyncIterator[Peers]:
    """Connections to the cluster of these settings, closed at the end."""
    peers = Peers(settings)
    try:
        yield peers
    finally:
        await peers.close()


async def while_restarting(
    attempt: Callable[[], Awaitable[Any]], alive: Callable[[], bool], total_s: float = 60.0
) -> Any:
    """Makes a repeatable call, patient while a supervised service comes back.

    Args:
        attempt: the call.
        alive: whether somebody restarts what crashed.
        total_s: for how long.

    Raises:
        errors.UnavailableError: nobody answers; says how to start the cluster where none runs.
    """
    try:
        return await attempt()
    except errors.UnavailableError as error:
        if not alive():
            raise errors.UnavailableError(
                "the cluster is not running: start it with `make up`"
            ) from error
    return await client.retried(attempt, total_s)
