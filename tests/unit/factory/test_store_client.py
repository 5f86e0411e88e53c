"""The store client against a store of a few lines, over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from services.factory import partners, store_client
from shared import discovery
from shared.cards import manifest as manifests
from shared.pb import cards_pb2, cards_pb2_grpc
from tests import fakes

DIGESTS = {version: str(version) * 64 for version in (1, 2, 3, 4)}


class Store(cards_pb2_grpc.CardStoreServicer):
    """Three versions, newest first, of which `latest` is one; a fourth was deleted."""

    def __init__(self) -> None:
        self.latest = 3
        self.moves = [1, 2, 3]
        self.lineage = manifests.Lineage(
            task_id="t",
            teacher="documents",
            dataset_digest="d" * 64,
            recipe={},
            seed=1,
            code_version="1",
        )

    async def ListCards(
        self, request: cards_pb2.ListCardsRequest, context: Any
    ) -> cards_pb2.ListCardsResponse:
        assert request.all_versions
        return cards_pb2.ListCardsResponse(cards=map(self.record, (3, 2, 1)))

    async def SetAlias(
        self, request: cards_pb2.SetAliasRequest, context: Any
    ) -> cards_pb2.CardRecord:
        assert request.alias == "latest"
        self.latest = int(request.digest[0])
        self.moves.append(self.latest)
        return self.record(self.latest)

    async def ListAliasMoves(
        self, request: cards_pb2.ListAliasMovesRequest, context: Any
    ) -> cards_pb2.ListAliasMovesResponse:
        assert (request.name, request.alias) == ("tiny", "latest")
        moves = [cards_pb2.AliasMove(digest=DIGESTS[version]) for version in self.moves]
        return cards_pb2.ListAliasMovesResponse(moves=reversed(moves))

    def record(self, version: int) -> cards_pb2.CardRecord:
        manifest = fakes.tiny_card().manifest.model_copy(update={"lineage": self.lineage})
        return cards_pb2.CardRecord(
            name="tiny",
            digest=DIGESTS[version],
            version=f"1.{version}.0",
            aliases=["latest"] if version == self.latest else [],
            manifest_json=manifest.to_json(),
        )


def card(version: int) -> str:
    return f"tiny@{DIGESTS[version]}"


@pytest.fixture
def store() -> Store:
    return Store()  # type: ignore[abstract]


@pytest.fixture
async def client(store: Store) -> AsyncIterator[store_client.StoreClient]:
    server = grpc.aio.server()
    cards_pb2_grpc.add_CardStoreServicer_to_server(store, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    async def find() -> list[discovery.StoreAddress]:
        return [discovery.StoreAddress("s", f"127.0.0.1:{port}")]

    opened = store_client.StoreClient(find)
    yield opened
    await opened.close()
    await server.stop(None)


async def test_latest_version_comes_with_its_dataset_when_it_has_a_lineage(
    client: store_client.StoreClient, store: Store
) -> None:
    assert await client.latest("tiny") == partners.Published(
        f"tiny@{DIGESTS[3]}", "d" * 64, "testing"
    )
    assert await client.latest("other") is None
    store.lineage = None  # type: ignore[assignment]
    assert await client.latest("tiny") is None


async def test_each_version_makes_room_for_an_older_one_when_they_are_withdrawn_in_turn(
    client: store_client.StoreClient,
) -> None:
    for versions in ([2, 1], [1]):
        serving = await client.serving("tiny")
        before = await client.versions_before(serving)
        assert before == [card(version) for version in versions]
        assert await client.withdraw("k", serving, before[0]) == before[0]
    assert await client.serving("tiny") == card(1)
    assert await client.versions_before(card(1)) == []


@pytest.mark.parametrize(
    ("moves", "before"),
    [([1, 2, 1, 3], [1]), ([1, 3], [1]), ([2, 4, 3], [2]), ([3], []), ([1, 2], []), ([], [])],
)
async def test_version_before_is_what_served_and_was_not_withdrawn_when_one_is_looked_for(
    client: store_client.StoreClient, store: Store, moves: list[int], before: list[int]
) -> None:
    store.moves = moves
    assert await client.versions_before(card(3)) == [card(version) for version in before]


async def test_newer_version_goes_on_serving_when_one_that_it_replaced_is_withdrawn(
    client: store_client.StoreClient, store: Store
) -> None:
    assert await client.withdraw("k", card(2), card(1)) == card(3)
    assert store.latest == 3
