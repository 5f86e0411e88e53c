"""The router over loopback: what it reports to the factory, and when."""

from __future__ import annotations

import pytest

from shared import errors
from shared.pb import router_pb2, types_pb2
from shared.rpc import client
from tests import fake_router_peers as peers
from tests.contract import router_cluster

SKARN = "the Skarnholm lighthouse"


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> router_cluster.Cluster:
    router_cluster.practise_once(monkeypatch)
    return router_cluster.Cluster(tmp_path)


async def test_event_is_delivered_when_no_card_fits(cluster):
    factory = peers.FakeFactory()
    async with peers.factory_server(factory, cluster.factory_address), cluster.router() as stub:
        answer = await router_cluster.route(stub, f"How tall is {SKARN}?")
        assert answer.dissonance and answer.none_probability == 1.0
        [report] = await factory.received(1)
        assert report.event_id == answer.event_id
        assert report.query == f"How tall is {SKARN}?"
        assert report.detected_at_ms > 0
        await router_cluster.until(stub, lambda s: (s.events_emitted, s.events_delivered) == (1, 1))


async def test_answer_comes_first_when_the_factory_hangs(cluster):
    factory = peers.FakeFactory()
    factory.gate.clear()
    async with peers.factory_server(factory, cluster.factory_address), cluster.router() as stub:
        answers = [await router_cluster.route(stub, f"What is number {n}?") for n in range(5)]
        assert factory.reports == []
        factory.gate.set()
        reports = await factory.received(5)
        assert {r.event_id for r in reports} == {a.event_id for a in answers}


async def test_no_event_leaves_when_the_caller_opts_out(cluster):
    factory = peers.FakeFactory()
    async with peers.factory_server(factory, cluster.factory_address), cluster.router() as stub:
        silent = await router_cluster.route(stub, "Who is secret?", no_learning=True)
        assert silent.dissonance and not silent.event_id
        await router_cluster.route(stub, "Who is public?")
        reports = await factory.received(1)
        assert [r.query for r in reports] == ["Who is public?"]
        assert (await router_cluster.status(stub)).events_emitted == 1


@pytest.mark.parametrize(
    "options", [{"learn_from_questions": False}, {"no_learning_tenants": ("acme",)}], ids=str
)
async def test_no_event_leaves_when_learning_is_switched_off(cluster, options):
    cluster.router_options = options
    async with cluster.router() as stub:
        silent = await router_cluster.route(stub, "Who is secret?", tenant="acme")
        assert silent.dissonance and not silent.event_id
        assert (await router_cluster.status(stub)).events_emitted == 0


async def test_event_carries_what_the_answer_told_when_it_is_reported(cluster):
    factory, store = peers.FakeFactory(), peers.FakeStore()
    await store.publish(peers.card_record("skarn", SKARN))
    async with (
        peers.factory_server(factory, cluster.factory_address),
        peers.store_server(store, cluster.store_address),
        cluster.router() as stub,
    ):
        await router_cluster.until(stub, lambda s: len(s.cards) == 1)
        question = f"How tall is {SKARN} to me@example.com?"
        answer = await router_cluster.route(
            stub, question, threshold=1.0, reports_answer=True, tenant="acme"
        )
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
        answer = await router_cluster.route(stub, "Who is late?")
        await router_cluster.until(stub, lambda s: s.events_emitted == 1)
        async with peers.factory_server(factory, cluster.factory_address):
            await router_cluster.until(stub, lambda s: s.events_delivered == 1)
            later = await router_cluster.route(stub, "Who is later?")
            reports = await factory.received(2)
        assert [r.event_id for r in reports] == [answer.event_id, later.event_id]


async def test_events_are_dropped_and_counted_when_the_queue_is_full(cluster):
    cluster.queue = 2
    factory = peers.FakeFactory()
    async with cluster.router() as stub:
        for number in range(5):
            await router_cluster.route(stub, f"What is number {number}?")
        status = await router_cluster.until(stub, lambda s: s.events_emitted == 5)
        assert status.events_dropped == 3
        async with peers.factory_server(factory, cluster.factory_address):
            await router_cluster.until(stub, lambda s: s.events_delivered == 2)
            assert len(factory.reports) == 2


async def test_events_survive_when_the_router_restarts(cluster):
    factory = peers.FakeFactory()
    async with cluster.router() as stub:
        answer = await router_cluster.route(stub, "Who survives?")
        await router_cluster.until(stub, lambda s: s.events_emitted == 1)
    async with peers.factory_server(factory, cluster.factory_address), cluster.router() as stub:
        [report] = await factory.received(1)
        assert (report.event_id, report.query) == (answer.event_id, "Who survives?")


async def test_next_event_is_delivered_when_the_factory_refuses_one(cluster):
    factory = peers.FakeFactory()
    factory.next_error = errors.InvalidInputError("not this one")
    async with peers.factory_server(factory, cluster.factory_address), cluster.router() as stub:
        await router_cluster.route(stub, "Who is refused?")
        await router_cluster.until(stub, lambda s: s.events_dropped == 1)
        await router_cluster.route(stub, "Who is taken?")
        reports = await factory.received(1)
        assert [r.query for r in reports] == ["Who is taken?"]
