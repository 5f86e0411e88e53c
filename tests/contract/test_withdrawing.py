"""The factory's client at a real card store: which version serves when others are withdrawn."""

from __future__ import annotations

import pathlib

from services.factory import store_client
from shared import discovery
from shared.flight import client as flight_client
from shared.pb import cards_pb2_grpc
from shared.rpc import client as rpc_client
from tests.contract.card_store_processes import Store, card_bytes, commit


async def test_withdrawn_version_does_not_serve_again_when_the_next_is_withdrawn(
    tmp_path: pathlib.Path,
) -> None:
    store = Store(tmp_path)
    control = f"127.0.0.1:{store.control.port}"

    async def find() -> list[discovery.StoreAddress]:
        return [discovery.StoreAddress("s", control)]

    client, flight = (
        store_client.StoreClient(find),
        flight_client.LoRAFlightClient(store.flight_address),
    )
    try:
        async with rpc_client.channel(control) as channel:
            stub = cards_pb2_grpc.CardStoreStub(channel)

            async def publish(seed: int) -> str:
                data = card_bytes("skill", f"1.{seed}.0", seed=seed)
                await commit(stub, flight.put("card", data))
                return await client.serving("skill")

            first = await publish(1)
            for seed in (2, 3):
                bad = await publish(seed)
                assert await client.versions_before(bad) == [first]
                assert await client.withdraw(f"k{seed}", bad, first) == first
            newest = await publish(4)
            assert await client.withdraw("k4", bad, first) == newest
            assert await client.serving("skill") == newest
    finally:
        await client.close()
        flight.close()
        store.stop()
