"""A router that starts again knows its cards' vectors; a card that lies about them stays out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from shared.pb import cards_pb2, router_pb2
from shared.rpc import client
from tests import fake_router_peers as peers
from tests.contract.router_cluster import Cluster

SKARN, TARN = "the Skarnholm lighthouse", "the Tarnvik viaduct"


class _Counting(peers.HashingEmbedder):
    """Keeps what it was asked; `vectors_id` may be another."""

    def __init__(self, vectors_id: str = "hashing") -> None:
        self.vectors_id = vectors_id
        self.asked: list[str] = []

    def embed(self, texts: Sequence[str]) -> Any:
        self.asked += texts
        return super().embed(texts)


@pytest.fixture
def cluster(tmp_path) -> Cluster:
    return Cluster(tmp_path)


async def _run(cluster: Cluster, records: Sequence[cards_pb2.CardRecord], routable: int) -> Any:
    """One life of a router that sees these cards: what it embedded, and an answer."""
    store = peers.FakeStore()
    for record in records:
        await store.publish(record)
    async with peers.store_server(store, cluster.store_address), cluster.router() as stub:
        status = router_pb2.GetRouterStatusRequest()
        while len((await client.call(stub.GetRouterStatus, status)).cards) != routable:
            await asyncio.sleep(0)
        request = router_pb2.RouteRequest(query=f"How tall is {SKARN}?", no_learning=True)
        return await client.call(stub.Route, request)


async def test_nothing_but_the_question_is_embedded_when_the_router_starts_again(cluster):
    records = [peers.card_record("skarn", SKARN), peers.card_record("tarn", TARN)]
    first, again, changed = _Counting(), _Counting(), _Counting("hashing-2")
    for model in (first, again, changed):
        cluster.load_model = lambda model=model: model
        answer = await _run(cluster, records, routable=2)
        assert answer.candidates[0].card.startswith("skarn@")
    assert again.asked == [f"How tall is {SKARN}?"]
    assert set(peers.about(TARN)) < set(first.asked) and sorted(changed.asked) == sorted(
        first.asked
    )


@pytest.mark.parametrize("wrong", ["[NaN]", "[0.5,0.5]", '["a"]'])
async def test_card_is_left_out_when_its_profile_is_wrong_and_others_are_not(cluster, wrong):
    liar = peers.card_record("tarn", TARN)
    assert '"centroid":[]' in liar.manifest_json
    liar.manifest_json = liar.manifest_json.replace('"centroid":[]', f'"centroid":{wrong}')
    answer = await _run(cluster, [liar, peers.card_record("skarn", SKARN)], routable=1)
    assert [found.card.partition("@")[0] for found in answer.candidates] == ["skarn"]


async def test_cards_are_routable_when_no_vector_can_be_kept(cluster):
    (cluster.state_dir / "router" / "vectors.sqlite").mkdir(parents=True)
    answer = await _run(cluster, [peers.card_record("skarn", SKARN)], routable=1)
    assert answer.candidates[0].card.startswith("skarn@")
