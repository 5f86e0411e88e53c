"""The router over loopback, with its factory and its card store in the test's own process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from services.router import server
from shared import errors
from shared.cards import manifest as manifests
from shared.pb import router_pb2, router_pb2_grpc, types_pb2
from shared.rpc import client
from tests import fake_router_peers as peers
from tests import fakes
from tests.contract.router_cluster import Cluster, tried

SKARN, TARN = "the Skarnholm lighthouse", "the Tarnvik viaduct"


@pytest.fixture
def cluster(tmp_path) -> Cluster:
    return Cluster(tmp_path)


async def _route(stub: router_pb2_grpc.RouterStub, query: str, **more: Any) -> Any:
    return await client.call(stub.Route, router_pb2.RouteRequest(query=query, **more))


async def _status(stub: router_pb2_grpc.RouterStub) -> router_pb2.RouterStatus:
    return await client.call(stub.GetRouterStatus, router_pb2.GetRouterStatusRequest())


async def _until(
    stub: router_pb2_grpc.RouterStub, holds: Callable[[router_pb2.RouterStatus], bool]
) -> router_pb2.RouterStatus:
    """Asks for the status, one answer after the other, until it is as awaited."""
    while not holds(status := await _status(stub)):
        await asyncio.sleep(0)
    return status


async def _eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    while not await holds():
        await asyncio.sleep(0)


async def test_event_is_delivered_when_no_card_fits(cluster):
    factory = peers.FakeFactory()
    async with peers.factory_server(factory, cluster.factory_address), cluster.router() as stub:
        answer = await _route(stub, f"How tall is {SKARN}?")
        assert answer.dissonance and answer.none_probability == 1.0
        [report] = await factory.received(1)
        assert report.event_id == answer.event_id
        assert report.query == f"How tall is {SKARN}?"
        assert report.detected_at_ms > 0
        await _until(stub, lambda s: (s.events_emitted, s.events_delivered) == (1, 1))


async def test_answer_comes_first_when_the_factory_hangs(cluster):
    factory = peers.FakeFactory()
    factory.gate.clear()
    async with peers.factory_server(factory, cluster.factory_address), cluster.router() as stub:
        answers = [await _route(stub, f"What is number {n}?") for n in range(5)]
        assert factory.reports == []
        factory.gate.set()
        reports = await factory.received(5)
        assert {r.event_id for r in reports} == {a.event_id for a in answers}


async def test_no_event_leaves_when_the_caller_opts_out(cluster):
    factory = peers.FakeFactory()
    async with peers.factory_server(factory, cluster.factory_address), cluster.router() as stub:
        silent = await _route(stub, "Who is secret?", no_learning=True)
        assert silent.dissonance and not silent.event_id
        await _route(stub, "Who is public?")
        reports = await factory.received(1)
        assert [r.query for r in reports] == ["Who is public?"]
        assert (await _status(stub)).events_emitted == 1


@pytest.mark.parametrize(
    "options", [{"learn_from_questions": False}, {"no_learning_tenants": ("acme",)}], ids=str
)
async def test_no_event_leaves_when_learning_is_switched_off(cluster, options):
    cluster.router_options = options
    async with cluster.router() as stub:
        silent = await _route(stub, "Who is secret?", tenant="acme")
        assert silent.dissonance and not silent.event_id
        assert (await _status(stub)).events_emitted == 0


async def test_event_carries_what_the_answer_told_when_it_is_reported(cluster):
    factory, store = peers.FakeFactory(), peers.FakeStore()
    await store.publish(peers.card_record("skarn", SKARN))
    async with (
        peers.factory_server(factory, cluster.factory_address),
        peers.store_server(store, cluster.store_address),
        cluster.router() as stub,
    ):
        await _until(stub, lambda s: len(s.cards) == 1)
        question = f"How tall is {SKARN} to me@example.com?"
        answer = await _route(stub, question, threshold=1.0, reports_answer=True, tenant="acme")
        signals = types_pb2.AnswerSignals(
            mean_logprob=-0.5,
            mean_entropy=0.25,
            tokens=7,
            admits_ignorance=True,
            semantic_entropy=0.5,
        )
        report = router_pb2.ReportAnswerRequest(event_id=answer.event_id, signals=signals)
        await client.call(stub.ReportAnswer, report)
        [event] = await factory.received(1)
        assert (event.event_id, event.tenant) == (answer.event_id, "acme")
        assert event.query == f"How tall is {SKARN} to <e-mail>?"
        assert event.signals == signals
        assert event.domain == "testing"


@pytest.mark.parametrize("name", ["mean_logprob", "mean_entropy", "semantic_entropy"])
async def test_report_is_refused_when_its_signals_are_no_numbers(cluster, name):
    signals = types_pb2.AnswerSignals(**{name: float("nan")})
    async with cluster.router() as stub:
        with pytest.raises(errors.InvalidInputError, match="finite"):
            await client.call(
                stub.ReportAnswer, router_pb2.ReportAnswerRequest(event_id="e", signals=signals)
            )


async def test_event_arrives_once_when_the_factory_was_down(cluster):
    factory = peers.FakeFactory()
    async with cluster.router() as stub:
        answer = await _route(stub, "Who is late?")
        await _until(stub, lambda s: s.events_emitted == 1)
        async with peers.factory_server(factory, cluster.factory_address):
            await _until(stub, lambda s: s.events_delivered == 1)
            later = await _route(stub, "Who is later?")
            reports = await factory.received(2)
        assert [r.event_id for r in reports] == [answer.event_id, later.event_id]


async def test_events_are_dropped_and_counted_when_the_queue_is_full(cluster):
    cluster.queue = 2
    factory = peers.FakeFactory()
    async with cluster.router() as stub:
        for number in range(5):
            await _route(stub, f"What is number {number}?")
        status = await _until(stub, lambda s: s.events_emitted == 5)
        assert status.events_dropped == 3
        async with peers.factory_server(factory, cluster.factory_address):
            await _until(stub, lambda s: s.events_delivered == 2)
            assert len(factory.reports) == 2


async def test_events_survive_when_the_router_restarts(cluster):
    factory = peers.FakeFactory()
    async with cluster.router() as stub:
        answer = await _route(stub, "Who survives?")
        await _until(stub, lambda s: s.events_emitted == 1)
    async with peers.factory_server(factory, cluster.factory_address), cluster.router() as stub:
        [report] = await factory.received(1)
        assert (report.event_id, report.query) == (answer.event_id, "Who survives?")


async def test_next_event_is_delivered_when_the_factory_refuses_one(cluster):
    factory = peers.FakeFactory()
    factory.next_error = errors.InvalidInputError("not this one")
    async with peers.factory_server(factory, cluster.factory_address), cluster.router() as stub:
        await _route(stub, "Who is refused?")
        await _until(stub, lambda s: s.events_dropped == 1)
        await _route(stub, "Who is taken?")
        reports = await factory.received(1)
        assert [r.query for r in reports] == ["Who is taken?"]


async def test_card_is_routed_to_when_the_store_publishes_it(cluster):
    store, record = peers.FakeStore(), peers.card_record("skarn", SKARN)
    async with peers.store_server(store, cluster.store_address), cluster.router() as stub:
        await store.watched(1)
        assert (await _route(stub, f"How tall is {SKARN}?", no_learning=True)).dissonance
        revision = await store.publish(record)
        await _until(stub, lambda s: s.revision == revision)
        identity = f"skarn@{record.digest}"

        async def routed() -> bool:
            answer = await _route(stub, f"Which height has {SKARN}?", no_learning=True)
            return not answer.dissonance and answer.candidates[0].card == identity

        await _eventually(routed)
        assert (await _status(stub)).events_emitted == 0


async def test_other_version_answers_when_the_alias_moves_back(cluster):
    store = peers.FakeStore()
    old, new = (peers.card_record("skarn", SKARN, v) for v in ("1.0.0", "1.1.0"))
    async with peers.store_server(store, cluster.store_address), cluster.router() as stub:
        for revision in (await store.publish(old), await store.publish(new)):
            await _until(stub, lambda s, at=revision: s.revision >= at)
        assert list((await _status(stub)).cards) == [f"skarn@{new.digest}"]
        revision = await store.move_latest(old)
        status = await _until(stub, lambda s: s.revision == revision)
        assert list(status.cards) == [f"skarn@{old.digest}"]


async def test_version_before_is_routed_to_when_one_is_revoked(cluster):
    store = peers.FakeStore()
    old, new = (peers.card_record("skarn", SKARN, v) for v in ("1.0.0", "1.1.0"))
    async with peers.store_server(store, cluster.store_address), cluster.router() as stub:
        await store.publish(old)
        await _until(stub, lambda s: list(s.cards) == [f"skarn@{old.digest}"])
        await store.publish(new)
        await _until(stub, lambda s: list(s.cards) == [f"skarn@{new.digest}"])
        revision = await store.withdraw(old)
        status = await _until(stub, lambda s: s.revision == revision)
        assert list(status.cards) == [f"skarn@{new.digest}"]
        await store.withdraw(new, instead=old)
        await _until(stub, lambda s: list(s.cards) == [f"skarn@{old.digest}"])
        await store.withdraw(old)
        await _until(stub, lambda s: not s.cards)


async def test_older_version_is_not_routed_to_when_it_is_mirrored_late(cluster):
    store = peers.FakeStore()
    old, new = (peers.card_record("skarn", SKARN, v) for v in ("1.0.0", "1.1.0"))
    del old.aliases[:]
    async with peers.store_server(store, cluster.store_address), cluster.router() as stub:
        await store.publish(new)
        revision = await store.publish(old)
        status = await _until(stub, lambda s: s.revision == revision)
        assert list(status.cards) == [f"skarn@{new.digest}"]


async def test_remote_card_is_routed_to_by_its_examples_when_a_peer_has_it(cluster):
    store, record = peers.FakeStore(), peers.card_record("skarn", SKARN)
    record.remote = True
    async with peers.store_server(store, cluster.store_address), cluster.router() as stub:
        await store.publish(record)
        await _until(stub, lambda s: list(s.cards) == [f"skarn@{record.digest}"])

        async def routed() -> bool:
            answer = await _route(stub, f"Which height has {SKARN}?", no_learning=True)
            return not answer.dissonance and answer.candidates[0].nearest_example != ""

        await _eventually(routed)
        store.latest.clear()
        store.store_id = "store-2"  # Listed anew, and the listing no longer has it.
        await store.drop()
        await _until(stub, lambda s: not s.cards)


async def test_store_is_listed_anew_when_a_listing_has_become_old(cluster):
    cluster.list_every_s = 0.2
    store, record = peers.FakeStore(), peers.card_record("skarn", SKARN)
    async with peers.store_server(store, cluster.store_address), cluster.router() as stub:
        await store.watched(1)
        store.latest["skarn"] = record  # Nobody is told.
        await _until(stub, lambda s: list(s.cards) == [f"skarn@{record.digest}"])
        assert store.watched_from == [0]


async def test_cards_are_joined_when_the_store_was_down_at_the_start(cluster):
    store = peers.FakeStore()
    await store.publish(peers.card_record("skarn", SKARN))
    async with cluster.router() as stub:
        assert (await _route(stub, "Who serves?", no_learning=True)).none_probability == 1.0
        async with peers.store_server(store, cluster.store_address):
            status = await _until(stub, lambda s: s.revision == 1)
            assert len(status.cards) == 1


async def test_watch_is_resumed_when_the_line_breaks(cluster):
    store = peers.FakeStore()
    async with peers.store_server(store, cluster.store_address), cluster.router() as stub:
        await store.watched(1)
        await store.publish(peers.card_record("skarn", SKARN))
        await _until(stub, lambda s: s.revision == 1)
        await store.drop()
        await store.publish(peers.card_record("tarn", TARN))
        status = await _until(stub, lambda s: s.revision == 2)
        assert len(status.cards) == status.card_count == 2
        await store.watched(2)
        assert store.watched_from[-1] in (1, 2)
        assert store.listings == 1


async def test_store_is_found_again_when_it_falls_silent(cluster):
    cluster.silence_s = 0.3
    store, other = peers.FakeStore(), peers.FakeStore("store-2")
    await other.publish(peers.card_record("tarn", TARN))
    async with peers.store_server(store, cluster.store_address), cluster.router() as stub:
        await store.watched(1)
        await store.publish(peers.card_record("skarn", SKARN))
        await _until(stub, lambda s: s.revision == 1)
        async with peers.store_server(other) as address:
            cluster.store_address = address
            store.silent = True
            await other.watched(1)
            # Another store is another truth: its listing replaces what was known.
            await _until(stub, lambda s: [c.split("@")[0] for c in s.cards] == ["tarn"])


async def test_broken_manifest_is_skipped_when_others_are_fine(cluster):
    store = peers.FakeStore()
    broken = peers.card_record("broken", TARN)
    broken.manifest_json = "{"
    await store.publish(broken)
    await store.publish(peers.card_record("skarn", SKARN))
    async with peers.store_server(store, cluster.store_address), cluster.router() as stub:
        status = await _until(stub, lambda s: s.revision == 2)
        assert [c.split("@")[0] for c in status.cards] == ["skarn"]


async def test_card_is_not_routed_to_when_nobody_trusted_signed_it(cluster):
    store = peers.FakeStore()
    forged, unsigned = peers.card_record("forged", TARN), peers.card_record("unsigned", TARN)
    forged.signature_json = peers.card_record("other", TARN).signature_json
    unsigned.signature_json = ""
    for record in (forged, unsigned, peers.card_record("skarn", SKARN)):
        await store.publish(record)
    async with peers.store_server(store, cluster.store_address), cluster.router() as stub:
        status = await _until(stub, lambda s: s.revision == 3)
        assert [c.split("@")[0] for c in status.cards] == ["skarn"]


@pytest.mark.parametrize("restarts", [False, True])
async def test_cards_of_a_key_are_not_routed_to_when_it_is_revoked(cluster, restarts):
    store, theirs = peers.FakeStore(), fakes.signer(1)
    fakes.keyring(cluster.state_dir, theirs)
    ours = peers.card_record("skarn", SKARN)
    await store.publish(ours)
    await store.publish(peers.card_record("tarn", TARN, by=theirs))
    async with peers.store_server(store, cluster.store_address):
        async with cluster.router() as stub:
            await _until(stub, lambda s: len(s.cards) == 2)
            if not restarts:
                revision = await store.revoke_key(theirs.key_id)
                status = await _until(stub, lambda s: s.revision == revision)
                assert list(status.cards) == [f"skarn@{ours.digest}"]
                revision = await store.publish(peers.card_record("tarn", TARN, "1.1.0", theirs))
                status = await _until(stub, lambda s: s.revision == revision)
                assert list(status.cards) == [f"skarn@{ours.digest}"]
                return
        await store.revoke_key(theirs.key_id)
        async with cluster.router() as stub:
            status = await _until(stub, lambda s: s.revision == 3)
            assert list(status.cards) == [f"skarn@{ours.digest}"]


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
        answer = await tried(stub, request)
        assert [(one.question, one.card) for one in answer.questions] == [
            (asked[0], f"{manifest.name}@{'a' * 64}"),
            (asked[1], ""),
        ]
        assert list(answer.others) == []
        assert (await _status(stub)).card_count == 0
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
            await _route(stub, query)


async def test_start_fails_with_the_address_when_the_port_is_taken(cluster):
    async with peers.store_server(peers.FakeStore()) as taken:
        with pytest.raises(errors.ConfigError, match=taken):
            async with server.running(cluster.settings(taken), peers.HashingEmbedder):
                pytest.fail("two servers share a port")
