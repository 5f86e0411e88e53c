"""Cards that are asked by their route alone: no question ever finds them."""

from __future__ import annotations

import asyncio

import pytest

from shared import errors
from shared.cards import manifest as manifests
from shared.pb import router_pb2
from shared.rpc import client
from tests import fake_router_peers as peers
from tests import fakes
from tests.contract.router_cluster import Cluster, tried

SKARN, TARN = "the Skarnholm lighthouse", "the Tarnvik viaduct"
ROUTE = manifests.SPECIALIST_LOCAL


@pytest.fixture
def cluster(tmp_path) -> Cluster:
    return Cluster(tmp_path)


async def _cards_at(stub, revision: int) -> list[str]:
    while True:
        status = await client.call(stub.GetRouterStatus, router_pb2.GetRouterStatusRequest())
        if status.revision == revision:
            return list(status.cards)
        await asyncio.sleep(0)


async def test_card_is_no_candidate_when_it_has_a_route(cluster):
    store = peers.FakeStore()
    listed = peers.card_record("specialist-skarn", SKARN, route=ROUTE)
    found = peers.card_record("tarn", TARN)
    await store.publish(listed)
    await store.publish(found)
    async with peers.store_server(store, cluster.store_address), cluster.router() as stub:
        assert await _cards_at(stub, 2) == [f"tarn@{found.digest}"]
        revision = await store.publish(peers.card_record("specialist-late", SKARN, route=ROUTE))
        assert await _cards_at(stub, revision) == [f"tarn@{found.digest}"]
        request = router_pb2.RouteRequest(query=f"How tall is {SKARN}?", top_k=10)
        answer = await client.call(stub.Route, request)
        names = [candidate.card.partition("@")[0] for candidate in answer.candidates]
        assert set(names) <= {"tarn"} and answer.dissonance


async def test_questions_find_a_card_no_more_when_its_new_version_has_a_route(cluster):
    store = peers.FakeStore()
    before = peers.card_record("skarn", SKARN)
    revision = await store.publish(before)
    async with peers.store_server(store, cluster.store_address), cluster.router() as stub:
        assert await _cards_at(stub, revision) == [f"skarn@{before.digest}"]
        revision = await store.publish(peers.card_record("skarn", SKARN, "1.1.0", route=ROUTE))
        assert await _cards_at(stub, revision) == []


async def test_card_is_not_tried_when_it_has_a_route(cluster):
    card = fakes.tiny_card()
    manifest = card.manifest.model_copy(update={"routing": manifests.RoutingProfile(route=ROUTE)})
    request = router_pb2.TryCardRequest(
        manifest_json=manifest.to_json(), digest="a" * 64, questions=["How tall?"]
    )
    store = peers.store_server(peers.FakeStore(), cluster.store_address)
    async with store, cluster.router() as stub:
        with pytest.raises(errors.InvalidInputError, match="specialist_local"):
            await tried(stub, request)
