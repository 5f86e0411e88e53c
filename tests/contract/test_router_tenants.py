"""Whose cards a router finds for whom."""

from __future__ import annotations

import contextlib
import json

import pytest

from services.inference import routing
from services.router import server
from shared import discovery
from shared import settings as config
from shared.pb import router_pb2, router_pb2_grpc
from shared.rpc import client
from shared.security import callers
from shared.security import protection as protections
from tests import fake_router_peers as peers
from tests import fakes
from tests.contract import addresses, router_cluster

OURS, OPEN = "the Skarn lighthouse", "the Tarn Head ferry"
TOKENS = (
    ("node", "node", ["*"]),
    ("of-a", "user", ["a"]),
    ("of-b", "user", ["b"]),
    ("of-none", "user", []),
)


@pytest.fixture(autouse=True)
def practised(monkeypatch):
    router_cluster.practise_once(monkeypatch)


@pytest.fixture
async def of(tmp_path):
    """Stubs by token, for a router that knows a card of tenant `a` and one of everybody."""
    tokens = tmp_path / "tokens.json"
    tokens.write_text(
        json.dumps(
            [
                {"name": name, "sha256": callers.hash_of(name), "role": role, "tenants": tenants}
                for name, role, tenants in TOKENS
            ]
        )
    )
    fakes.keyring(tmp_path)
    store, factory = peers.FakeStore(), peers.FakeFactory()
    owned, everybodys = peers.card_record("skarn", OURS), peers.card_record("tarn", OPEN)
    owned.tenants.append("a")
    store_address = addresses.free_address()

    async def find() -> list[discovery.StoreAddress]:
        return [discovery.StoreAddress("store", store_address)]

    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(peers.store_server(store, store_address))
        await store.publish(owned)
        await store.publish(everybodys)
        settings = config.Settings(
            cluster=config.Cluster(state_dir=tmp_path),
            router=config.Router(address="127.0.0.1:0"),
            factory=config.Factory(
                address=await stack.enter_async_context(peers.factory_server(factory))
            ),
            security=config.Security(tokens=tokens),
        )
        running = server.running(settings, peers.HashingEmbedder, find)
        port = await stack.enter_async_context(running)
        stubs = {}
        for name, _, _ in TOKENS:
            shown = protections.Protection(token=name)
            channel = client.channel(f"127.0.0.1:{port}", protection=shown)
            stubs[name] = router_pb2_grpc.RouterStub(await stack.enter_async_context(channel))
        await router_cluster.until(
            stubs["node"], lambda s: len(s.cards) == 2 and s.HasField("calibration_error")
        )
        stubs["factory"] = factory
        yield stubs


def _names(candidates) -> set[str]:
    return {one.card.partition("@")[0] for one in candidates}


async def test_card_of_a_tenant_is_found_by_its_own_alone(of):
    asked = {"query": f"Which height has {OURS}?", "top_k": 5}
    for name, sees in (("node", True), ("of-a", True), ("of-b", False), ("of-none", False)):
        routed = await router_cluster.route(of[name], **asked)
        assert routed.dissonance is not sees
        assert _names(routed.candidates) == ({"skarn", "tarn"} if sees else {"tarn"})
        told = await client.call(of[name].ExplainRoute, router_pb2.ExplainRouteRequest(**asked))
        assert _names(told.cards) == _names(routed.candidates)
        assert told.confidence == pytest.approx(routed.confidence)
        status = await router_cluster.status(of[name])
        assert len(status.cards) == (2 if sees else 1)
        open_to_all = await router_cluster.route(of[name], f"Which height has {OPEN}?")
        assert _names(open_to_all.candidates) == {"tarn"}
        assert not open_to_all.dissonance


async def test_node_is_told_what_its_asker_may_be_answered_by(of):
    query = f"Which height has {OURS}?"
    for names, sees in (([], False), (["b"], False), (["b", "a"], True)):
        tenants = router_pb2.Tenants(names=names)
        routed = await router_cluster.route(of["node"], query, top_k=5, tenants=tenants)
        assert ("skarn" in _names(routed.candidates)) is sees
        # A token's own limit holds whatever its request names.
        tried = await router_cluster.route(of["of-b"], query, top_k=5, tenants=tenants)
        assert "skarn" not in _names(tried.candidates)


async def test_nodes_client_says_whose_question_it_is(of):
    client_of_node = routing.RouterClient(of["node"])
    query = f"Which height has {OURS}?"
    for tenants, sees in ((None, True), (frozenset(), False), (frozenset({"a", "b"}), True)):
        routed = await client_of_node.route(query, True, 10.0, tenants)
        assert ("skarn" in _names(routed.candidates)) is sees, tenants


async def test_question_is_its_callers_when_it_names_another_tenant(of):
    for number, (name, said, whose) in enumerate(
        (("of-b", "a", "b"), ("of-none", "a", ""), ("node", "a", "a"), ("of-a", "a", "a")), 1
    ):
        query = f"Who wrote ledger number {number} of Quillhaven?"
        await router_cluster.route(of[name], query, tenant=said)
        received = await of["factory"].received(number)
        assert (received[-1].query, received[-1].tenant) == (query, whose)


async def test_nothing_is_learned_when_only_a_hidden_card_fits(of):
    hidden = await router_cluster.route(of["of-b"], f"Which height has {OURS}?")
    assert hidden.dissonance
    assert hidden.event_id == ""
    unknown = await router_cluster.route(of["of-b"], "Who wrote the third ledger of Quillhaven?")
    (event,) = await of["factory"].received(1)
    assert event.event_id == unknown.event_id
