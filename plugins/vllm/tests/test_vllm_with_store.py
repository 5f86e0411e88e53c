"""The plugin against the processes of a real card store."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator, Iterator

import pytest
import stores
from skillmesh_vllm import cache, following, resolver, settings
from skillmesh_vllm import store as plugin_store
from test_vllm_following import FakeServer
from test_vllm_resolver import LoRARequest

from shared.cards import card as cards
from shared.cards import peft_layout
from shared.flight import client as flight_client
from shared.pb import cards_pb2, cards_pb2_grpc, types_pb2
from shared.rpc import client as rpc_client
from tests.contract.card_store_processes import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = Store(tmp_path_factory.mktemp("store"))
    yield opened
    opened.stop()


@pytest.fixture
async def control(store: Store) -> AsyncIterator[cards_pb2_grpc.CardStoreAsyncStub]:
    async with rpc_client.channel(f"127.0.0.1:{store.control.port}") as channel:
        yield cards_pb2_grpc.CardStoreStub(channel)


async def publish(
    store: Store, control: cards_pb2_grpc.CardStoreAsyncStub, card: cards.LoRACard
) -> str:
    client = flight_client.LoRAFlightClient(store.flight_address)
    digest = client.put("card", stores.file_of(card)[0])
    client.close()
    ticket = types_pb2.Ticket(kind="card", digest=digest)
    await rpc_client.call(
        control.Commit, cards_pb2.CommitRequest(idempotency_key=digest, ticket=ticket)
    )
    return digest


async def test_the_new_version_is_served_when_the_alias_moved_in_a_real_store(
    store: Store, control: cards_pb2_grpc.CardStoreAsyncStub, tmp_path: pathlib.Path
) -> None:
    found = plugin_store.CardStore(settings.Store(f"grpc://{store.flight_address}"))
    server = FakeServer()
    names = following.NameFollower(found.find, server, every_s=0.05)
    plugin = resolver.CardResolver(
        found, cache.FolderCache(tmp_path, 2**30), stores.BASE.fingerprint, LoRARequest, names
    )
    assert await plugin.resolve_lora("tiny", "tiny-skill@production") is None

    first, second = stores.card(), stores.card(seed=2, version="1.0.1")
    for card in (first, second):
        digest = await publish(store, control, card)
        await rpc_client.call(
            control.SetAlias,
            cards_pb2.SetAliasRequest(name="tiny-skill", alias="production", digest=digest),
        )
        if card is second:
            assert server.told.wait(30) and server.forgotten == ["tiny-skill@production"]
        request = await plugin.resolve_lora("tiny", "tiny-skill@production")
        assert request.lora_name.startswith(f"tiny-skill@{digest}#")
        assert peft_layout.read(pathlib.Path(request.lora_path)).modules == card.modules
    names.stop()
