"""What the trainer's gate asks of a router, over loopback."""

from __future__ import annotations

import pathlib

import pytest

from services.trainer import router_client
from shared import errors
from shared.cards import manifest as manifests
from shared.pb import router_pb2_grpc
from shared.rpc import client
from tests import fake_router_peers as peers
from tests import fakes
from tests.contract import addresses
from tests.contract.router_cluster import Cluster

SKARN, TARN = "the Skarnholm lighthouse", "the Tarnvik viaduct"


def _manifest() -> manifests.Manifest:
    routing = manifests.RoutingProfile(examples=peers.about(SKARN))
    return fakes.tiny_card().manifest.model_copy(update={"routing": routing})


async def test_gate_learns_where_questions_would_go_when_it_asks_the_router(
    tmp_path: pathlib.Path,
) -> None:
    asked = (f"Which height has {SKARN}?", f"Which height has {TARN}?")
    async with Cluster(tmp_path).router() as stub:
        router = router_client.RouterClient(stub)
        found = await router.rehearse(_manifest(), "a" * 64, asked)
    assert [one.question for one in found.questions] == list(asked)
    assert [one.card for one in found.questions] == [f"tiny@{'a' * 64}", ""]
    assert [one.card_without for one in found.questions] == ["", ""]


async def test_gate_is_told_to_ask_again_when_the_router_is_away() -> None:
    async with client.channel(addresses.free_address()) as channel:
        router = router_client.RouterClient(router_pb2_grpc.RouterStub(channel))
        with pytest.raises(errors.UnavailableError):
            await router.rehearse(_manifest(), "a" * 64, ("Why?",))
