"""Puts datasets into the card store's data plane; the factory commits them."""

from __future__ import annotations

import asyncio

from shared import discovery
from shared import settings as config
from shared.flight import client as flight_client
from shared.pb import cards_pb2, cards_pb2_grpc
from shared.rpc import client

_RETRY_S = 120.0
"""A store that restarts is back well before this."""


class DatasetStore:
    """The card store that this cluster uses now."""

    def __init__(self, settings: config.Settings, retry_s: float = _RETRY_S) -> None:
        """Takes the settings that say where stores are found.

        Args:
            settings: names the cluster and the static list of stores.
            retry_s: how long a store that is away is waited for.
        """
        self._settings = settings
        self._retry_s = retry_s

    async def put(self, data: bytes) -> str:
        """Uploads a dataset's bytes, which is safe to repeat.

        Returns:
            Its digest, SHA-256 in lower-case hex.

        Raises:
            errors.UnavailableError: no store could be reached.
            errors.SkillmeshError: the store refused the upload.
        """
        # The store is looked for in every attempt: one that comes back may be another one.
        return await client.retried(lambda: self._attempt(data), self._retry_s)

    async def _attempt(self, data: bytes) -> str:
        address = await self._flight_address()
        return await asyncio.to_thread(_put, address, data)

    async def _flight_address(self) -> str:
        stores = await discovery.find_stores(self._settings)
        async with client.channel(stores[0].control) as channel:
            stub = cards_pb2_grpc.CardStoreStub(channel)
            status = await client.call(stub.GetStoreStatus, cards_pb2.GetStoreStatusRequest())
        return str(status.flight_address)


def _put(address: str, data: bytes) -> str:
    connection = flight_client.LoRAFlightClient(address)
    try:
        return connection.put("dataset", data)
    finally:
        connection.close()
