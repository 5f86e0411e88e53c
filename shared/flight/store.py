"""Puts and gets by ticket in whatever card store this cluster has now, with patience."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import TypeVar

from shared import discovery
from shared import settings as config
from shared.flight import client as flight_client
from shared.pb import cards_pb2, cards_pb2_grpc
from shared.rpc import client
from shared.security import protection as protections

T = TypeVar("T")
_RETRY_S = 120.0
"""A store that restarts is back well before this."""


class StoreConnection:
    """The data plane of the card store that discovery finds."""

    def __init__(
        self,
        settings: config.Settings,
        retry_s: float = _RETRY_S,
        protection: protections.Protection = protections.OPEN,
    ) -> None:
        """Takes the settings that say where stores are found.

        Args:
            settings: names the cluster and the static list of stores.
            retry_s: how long a store that is away is waited for.
            protection: what is shown to stores and asked of them.
        """
        self._protection = protection
        self._settings = settings
        self._retry_s = retry_s

    async def put(self, kind: flight_client.Kind, data: bytes) -> str:
        """Uploads a file's bytes, which is safe to repeat; they still have to be committed.

        Returns:
            Its digest, SHA-256 in lower-case hex.

        Raises:
            errors.UnavailableError: no store could be reached.
            errors.SkillmeshError: the store refused the upload.
        """
        return await self._with_client(lambda connection: connection.put(kind, data))

    async def get(self, digest: str) -> bytes:
        """Fetches a file's bytes, checked against the digest.

        Raises:
            errors.NotFoundError: the store does not have it.
            errors.UnavailableError: no store could be reached.
        """
        return await self._with_client(lambda connection: connection.get(digest))

    async def _with_client(self, use: Callable[[flight_client.LoRAFlightClient], T]) -> T:
        # The store is looked for in every attempt: one that comes back may be another one. Of
        # several each is asked in turn.
        turn = itertools.count()

        async def attempt() -> T:
            stores = await discovery.find_stores(self._settings)
            address = await self._flight_address(stores[next(turn) % len(stores)].control)
            return await asyncio.to_thread(_used, address, use, self._protection)

        return await client.retried(attempt, self._retry_s)

    async def _flight_address(self, control: str) -> str:
        async with client.channel(control, protection=self._protection) as channel:
            stub = cards_pb2_grpc.CardStoreStub(channel)
            status = await client.call(stub.GetStoreStatus, cards_pb2.GetStoreStatusRequest())
        return discovery.reachable(status.flight_address, control)


def _used(
    address: str,
    use: Callable[[flight_client.LoRAFlightClient], T],
    protection: protections.Protection,
) -> T:
    connection = flight_client.LoRAFlightClient(address, protection)
    try:
        return use(connection)
    finally:
        connection.close()
