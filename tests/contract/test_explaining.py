"""The command line's `explain` against a real router."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from services.gateway import domain
from services.gateway.command_line import explaining
from services.router import calibration, server
from shared import discovery, terminal
from shared.pb import router_pb2, router_pb2_grpc
from shared.rpc import client
from tests import fake_router_peers as peers
from tests.contract.router_cluster import Cluster

SKARN, TARN = "the Skarnholm lighthouse", "the Tarnvik viaduct"


@contextlib.asynccontextmanager
async def _router(tmp_path, monkeypatch, *cards) -> AsyncIterator[None]:
    cluster, store = Cluster(tmp_path), peers.FakeStore()
    for name, thing in cards:
        await store.publish(peers.card_record(name, thing))

    async def find() -> list[discovery.StoreAddress]:
        return [discovery.StoreAddress("store", cluster.store_address)]

    async with (
        peers.store_server(store, cluster.store_address),
        server.running(cluster.settings(), peers.HashingEmbedder, find) as port,
        client.channel(f"127.0.0.1:{port}") as channel,
    ):
        monkeypatch.setenv("SKILLMESH__ROUTER__ADDRESS", f"127.0.0.1:{port}")
        monkeypatch.setenv("SKILLMESH__CLUSTER__STATE_DIR", str(tmp_path))
        stub = router_pb2_grpc.RouterStub(channel)
        request = router_pb2.GetRouterStatusRequest()
        while len((await client.call(stub.GetRouterStatus, request)).cards) < len(cards):
            pass
        yield


async def test_explain_tells_what_would_change_the_decision(tmp_path, monkeypatch, capsys):
    async with _router(tmp_path, monkeypatch, ("skarn", SKARN), ("tarn", TARN)):
        capsys.readouterr()
        await explaining.explain(f"Who built {SKARN}?", 2, None, as_json=False)
        told = capsys.readouterr().out
    assert "chosen: skarn@" in told
    assert "threshold 0.4, 2 cards" in told
    assert "the decision flips at a threshold of" in told
    assert f"1.000  Who built {SKARN}?" in told
    assert "words it has, too: who, built, the, skarnholm, lighthouse" in told
    assert "leads by a factor of" in told and "without it tarn@" in told
    assert "against the next" in told and "names its subject" in told
    own = [name for name in calibration.COLUMNS if f"\n│ {name} " in told]
    assert own == [], "people are told in their words what weighs"


def test_everything_that_weighs_has_words_of_people():
    told = [domain.feature(name) for name in calibration.COLUMNS]
    assert len(set(told)) == len(told) and not set(told) & set(calibration.COLUMNS)
    assert domain.feature("something new") == "something new"


async def test_explain_says_how_much_likeness_is_missing_when_no_card_fits(
    tmp_path, monkeypatch, capsys
):
    async with _router(tmp_path, monkeypatch, ("skarn", SKARN)):
        capsys.readouterr()
        await explaining.explain("Who built the Skarnholm aqueduct?", 1, 1 - 1e-6, as_json=False)
        told = capsys.readouterr().out
    assert "no card fits: the best one is too unlikely" in told
    assert "would be chosen up to it" in told


async def test_explain_is_one_object_when_printed_as_json(tmp_path, monkeypatch, capsys):
    async with _router(tmp_path, monkeypatch):
        capsys.readouterr()
        await explaining.explain("Who built it?", 2, None, as_json=True)
        printed = capsys.readouterr().out
    found = json.loads(printed[printed.index("{\n") :])  # The services log there, too.
    assert (found["reason"], found["cards"], found["number_of_cards"]) == ("NO_CARDS", [], 0)
    assert "flips_above" not in found


async def test_explain_says_so_when_there_are_no_cards(tmp_path, monkeypatch, capsys):
    async with _router(tmp_path, monkeypatch):
        await explaining.explain("Who built it?", 2, None, as_json=False)
    assert "the router has no cards yet" in capsys.readouterr().out


async def test_explain_is_refused_when_nothing_is_asked():
    with pytest.raises(terminal.UsageError):
        await explaining.explain(" ", 2, None, as_json=False)
