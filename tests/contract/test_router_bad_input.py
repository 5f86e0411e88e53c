"""The router over loopback, asked what nobody should ask, and asked why.

One router serves most of these tests: what is asked of it changes none of its answers.
"""

from __future__ import annotations

import math
from typing import Any

import grpc
import pytest
import pytest_asyncio

from shared import errors
from shared.pb import router_pb2
from shared.rpc import client
from tests import fake_router_peers as peers
from tests.contract import router_cluster
from tests.contract.router_cluster import Cluster

pytestmark = pytest.mark.asyncio(loop_scope="module")
SKARN, TARN = "the Skarnholm lighthouse", "the Tarnvik viaduct"
QUERY = f"Which height has {SKARN}?"
REQUESTS = {"Route": router_pb2.RouteRequest, "ExplainRoute": router_pb2.ExplainRouteRequest}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stub(tmp_path_factory):
    cluster, store = Cluster(tmp_path_factory.mktemp("router")), peers.FakeStore()
    for name, thing in (("skarn", SKARN), ("tarn", TARN)):
        await store.publish(peers.card_record(name, thing))
    async with peers.store_server(store, cluster.store_address), cluster.router() as found:
        # Both cards, and what they change in the calibration.
        await router_cluster.until(
            found, lambda status: len(status.cards) == 2 and status.HasField("calibration_error")
        )
        yield found


async def _call(stub: Any, method: str, **fields: Any) -> Any:
    return await client.call(getattr(stub, method), REQUESTS[method](**fields))


@pytest.mark.parametrize("method", REQUESTS)
@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"query": ""}, "query"),
        ({"query": " \n"}, "query"),
        ({"query": "x" * 100_000}, "query"),
        ({"query": QUERY, "top_k": -1}, "top_k"),
        ({"query": QUERY, "top_k": 2**31 - 1}, "top_k"),
        ({"query": QUERY, "threshold": math.nan}, "threshold"),
        ({"query": QUERY, "threshold": math.inf}, "threshold"),
        ({"query": QUERY, "threshold": -0.5}, "threshold"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_field_is_named_when_a_request_is_wrong(stub, method, fields, named):
    with pytest.raises(errors.InvalidInputError, match=named):
        await _call(stub, method, **fields)


@pytest.mark.parametrize("query", ["\x00", "🎉", "\u200b", "?!", "\x1b\x07"], ids=repr)
async def test_none_fits_when_a_query_has_no_words(stub, query):
    answer = await _call(stub, "Route", query=query)
    assert answer.dissonance and not answer.candidates and answer.none_probability == 1.0
    assert answer.event_id
    explained = await _call(stub, "ExplainRoute", query=query)
    assert (explained.reason, len(explained.cards)) == ("NO_WORDS", 0)


@pytest.mark.parametrize("query", ["Wie hoch? 普洛 мост 🎉", "\x00Whose\x00cat?", "x" * 8_000])
async def test_none_fits_when_a_query_is_about_nothing_that_is_known(stub, query):
    assert (await _call(stub, "Route", query=query)).dissonance


@pytest.mark.parametrize("data", [b"\x0a\x02\xed\xa0", b"\x0a\x04\xff\xfe\xfd\xfc", b"\xff" * 9])
async def test_request_is_refused_when_it_is_no_utf8_or_no_message(stub, data, monkeypatch):
    """Half a surrogate pair can't be put into a message in Python; other languages can."""
    # What the stub would send is not looked at.
    monkeypatch.setattr(stub.Route, "_request_serializer", None)
    with pytest.raises(errors.InvalidInputError, match="request"):
        await client.call(stub.Route, data)
    assert (await router_cluster.status(stub)).cards


async def test_explanation_tells_of_both_cards_when_it_is_asked_for_two(stub):
    emitted = (await router_cluster.status(stub)).events_emitted
    answer = await _call(stub, "Route", query=QUERY, top_k=2, no_learning=True)
    found = await _call(stub, "ExplainRoute", query=QUERY, top_k=2)
    assert [(one.card, one.probability) for one in found.cards] == [
        (one.card, one.probability) for one in answer.candidates
    ]
    assert found.confidence == answer.confidence and found.flips_above == answer.confidence
    first = found.cards[0]
    assert first.examples[0].text == answer.candidates[0].nearest_example
    total = first.start + sum(one.log_odds for one in first.contributions) + first.rest
    assert total == pytest.approx(first.log_odds)
    assert found.number_of_cards == 2 and found.HasField("lead") and found.HasField("second_fits")
    assert not found.cards[1].contributions[0].HasField("against_next")
    assert (await router_cluster.status(stub)).events_emitted == emitted


async def test_explanation_says_so_when_there_are_no_cards(tmp_path):
    async with Cluster(tmp_path).router() as stub:
        found = await _call(stub, "ExplainRoute", query=QUERY)
        assert (found.reason, found.number_of_cards) == ("NO_CARDS", 0)
        assert not found.HasField("flips_above")


async def test_status_tells_the_calibration_error_when_cards_are_there(stub):
    status = await router_cluster.until(stub, lambda s: s.HasField("calibration_error"))
    assert 0.0 <= status.calibration_error < 0.5 and status.calibration_rows > 100
    bins = status.calibration_bins
    assert sum(one.mass for one in bins) == pytest.approx(1.0) and 0.0 < status.threshold < 1.0
    gaps = sum(one.mass * abs(one.probability - one.share) for one in bins)
    assert gaps == pytest.approx(status.calibration_error)


async def test_event_arrives_whole_when_a_query_is_made_of_control_characters(tmp_path):
    cluster, factory = Cluster(tmp_path), peers.FakeFactory()
    query = "How \x00tall\x1b is\u202e the 🎉 \u0301?"
    async with peers.factory_server(factory, cluster.factory_address), cluster.router() as stub:
        answer = await _call(stub, "Route", query=query)
        [report] = await factory.received(1)
        assert (report.event_id, report.query) == (answer.event_id, query)


async def test_call_is_turned_away_when_it_has_more_bytes_than_a_message(stub):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.Route(router_pb2.RouteRequest(query="x" * (5 * 2**20)), timeout=30)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
