"""What the trainer's gate asks of a router, over loopback."""

from __future__ import annotations

import pathlib
from typing import Any

import grpc
import pytest

from services.trainer import router_client
from shared import errors
from shared.cards import manifest as manifests
from shared.pb import router_pb2, router_pb2_grpc
from shared.rpc import client
from shared.rpc import server as rpc_server
from tests import fake_router_peers as peers
from tests import fakes
from tests.contract import addresses, router_cluster

SKARN, TARN = "the Skarnholm lighthouse", "the Tarnvik viaduct"


def _manifest() -> manifests.Manifest:
    routing = manifests.RoutingProfile(examples=peers.about(SKARN))
    return fakes.tiny_card().manifest.model_copy(update={"routing": routing})


def _request() -> router_pb2.TryCardRequest:
    return router_pb2.TryCardRequest(manifest_json=_manifest().to_json(), digest="a" * 64)


async def test_gate_learns_where_questions_would_go_when_it_asks_the_router(
    tmp_path: pathlib.Path,
) -> None:
    asked = (f"Which height has {SKARN}?", f"Which height has {TARN}?")
    cluster = router_cluster.Cluster(tmp_path)
    store = peers.store_server(peers.FakeStore(), cluster.store_address)
    async with store, cluster.router() as stub:
        await router_cluster.tried(stub, _request())
        router = router_client.RouterClient(stub)
        found = await router.rehearse(_manifest(), "a" * 64, asked)
    assert [one.question for one in found.questions] == list(asked)
    assert [one.card for one in found.questions] == [f"tiny@{'a' * 64}", ""]
    assert [one.card_without for one in found.questions] == ["", ""]
    near, far = found.questions
    assert near.similarity > far.similarity > 0.0
    assert near.reading == f"What is the height of {SKARN}?"


async def test_every_question_is_told_of_when_they_take_several_calls(
    tmp_path: pathlib.Path,
) -> None:
    asked = [f"What is the height of {SKARN} in {number}?" for number in range(2_001)]
    cluster = router_cluster.Cluster(tmp_path)
    store = peers.FakeStore()
    await store.publish(peers.card_record("tarn", TARN))
    async with peers.store_server(store, cluster.store_address), cluster.router() as stub:
        await router_cluster.tried(stub, _request())
        router = router_client.RouterClient(stub)
        found = await router.rehearse(_manifest(), "a" * 64, asked)
        few = await router.rehearse(_manifest(), "a" * 64, asked[:1])
    assert [one.question for one in found.questions] == asked
    assert found.others == few.others != ()


async def test_gate_is_told_to_ask_again_when_the_router_has_not_read_the_store(
    tmp_path: pathlib.Path,
) -> None:
    async with router_cluster.Cluster(tmp_path).router() as stub:
        router = router_client.RouterClient(stub)
        with pytest.raises(errors.UnavailableError, match="card store"):
            await router.rehearse(_manifest(), "a" * 64, ("Why?",))


class _Lazy(router_pb2_grpc.RouterServicer):
    """A router that leaves questions out."""

    async def TryCard(
        self, request: router_pb2.TryCardRequest, context: Any
    ) -> router_pb2.TryCardResponse:
        tried = [router_pb2.TriedQuestion(question=text) for text in request.questions[1:]]
        return router_pb2.TryCardResponse(questions=tried)


async def test_gate_takes_no_answer_when_questions_are_left_out() -> None:
    def add(server: grpc.aio.Server) -> str:
        router_pb2_grpc.add_RouterServicer_to_server(_Lazy(), server)
        return router_pb2.DESCRIPTOR.services_by_name["Router"].full_name

    server = rpc_server.Server([add], "127.0.0.1:0")
    await server.start()
    async with client.channel(f"127.0.0.1:{server.port}") as channel:
        router = router_client.RouterClient(router_pb2_grpc.RouterStub(channel))
        for asked in (("Why?",), ("Why?", "Who?")):
            with pytest.raises(errors.InternalError, match="same version"):
                await router.rehearse(_manifest(), "a" * 64, asked)
    await server.stop()


async def test_gate_is_told_to_ask_again_when_the_router_is_away() -> None:
    async with client.channel(addresses.free_address()) as channel:
        router = router_client.RouterClient(router_pb2_grpc.RouterStub(channel))
        with pytest.raises(errors.UnavailableError):
            await router.rehearse(_manifest(), "a" * 64, ("Why?",))
