"""The router over loopback: what it answers whoever asks it."""

from __future__ import annotations

import numpy as np
import pytest

from services.router import server
from shared import errors
from shared.cards import manifest as manifests
from shared.pb import router_pb2
from shared.rpc import client
from tests import fake_router_peers as peers
from tests import fakes
from tests.contract import router_cluster

SKARN, TARN = "the Skarnholm lighthouse", "the Tarnvik viaduct"


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> router_cluster.Cluster:
    router_cluster.practise_once(monkeypatch)
    return router_cluster.Cluster(tmp_path)


async def test_fate_of_questions_is_told_when_a_card_is_tried(cluster):
    card = fakes.tiny_card()
    routing = manifests.RoutingProfile(examples=peers.about(SKARN))
    manifest = card.manifest.model_copy(update={"routing": routing})
    asked = [f"Which height has {SKARN}?", f"Which height has {TARN}?"]
    request = router_pb2.TryCardRequest(
        manifest_json=manifest.to_json(), digest="a" * 64, questions=asked
    )
    store = peers.store_server(peers.FakeStore(), cluster.store_address)
    async with store, cluster.router() as stub:
        answer = await router_cluster.tried(stub, request)
        assert [(one.question, one.card) for one in answer.questions] == [
            (asked[0], f"{manifest.name}@{'a' * 64}"),
            (asked[1], ""),
        ]
        assert list(answer.others) == []
        assert (await router_cluster.status(stub)).card_count == 0
        # At the new card, whichever answers.
        near, far = answer.questions
        assert near.similarity > far.similarity > 0.0
        assert {near.reading, far.reading} <= set(peers.about(SKARN))
        assert near.reading == f"What is the height of {SKARN}?"


async def test_card_is_not_tried_when_its_digest_is_none(cluster):
    request = router_pb2.TryCardRequest(manifest_json="{}", digest="latest")
    async with cluster.router() as stub:
        with pytest.raises(errors.InvalidInputError, match="digest"):
            await client.call(stub.TryCard, request)


async def test_vectors_come_back_whole_when_texts_are_embedded(cluster):
    texts = ["one text", "another much longer text", ""]
    async with cluster.router() as stub:
        answer = await client.call(stub.Embed, router_pb2.EmbedRequest(texts=texts))
        vectors = np.frombuffer(answer.vectors, dtype="<f4").reshape(3, answer.dimension)
        assert np.array_equal(vectors, peers.HashingEmbedder().embed(texts))
        assert answer.embedder_id == "all-MiniLM-L6-v2"


@pytest.mark.parametrize("query", ["", " ", "x" * 8001])
async def test_query_is_refused_when_empty_or_too_long(cluster, query):
    async with cluster.router() as stub:
        with pytest.raises(errors.InvalidInputError, match="query"):
            await router_cluster.route(stub, query)


async def test_start_fails_with_the_address_when_the_port_is_taken(cluster):
    async with peers.store_server(peers.FakeStore()) as taken:
        with pytest.raises(errors.ConfigError, match=taken):
            async with server.running(cluster.settings(taken), peers.HashingEmbedder):
                pytest.fail("two servers share a port")
