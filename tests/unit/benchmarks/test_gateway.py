"""What is counted as what, and figures out of measurements."""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import AsyncIterator

import httpx
import openai
import pytest

from benchmarks.gateway import judging, kills, overhead, soak, streams, throughput

REQUEST = httpx.Request("POST", "http://gateway/v1/chat/completions")
OF_A = judging.Expected("a@1", "Paris.")


def status(code: int) -> openai.APIStatusError:
    return openai.APIStatusError("told", response=httpx.Response(code, request=REQUEST), body=None)


@pytest.mark.parametrize(
    ("error", "words", "kind"),
    [
        (status(503), 0, "503"),
        (status(429), 0, "429"),
        (status(404), 0, "404"),
        (openai.APIConnectionError(request=REQUEST), 0, "connection"),
        (openai.APITimeoutError(REQUEST), 0, "timeout"),
        (httpx.RemoteProtocolError("gone"), 0, "connection"),
        (httpx.RemoteProtocolError("gone"), 3, "cut_off"),
        (openai.APIError("told in the stream", REQUEST, body=None), 3, "cut_off"),
        (judging.UnendedError("no end"), 3, "UnendedError"),
    ],
)
def test_a_failure_has_the_kind_that_a_client_acts_on(error, words, kind):
    assert judging.kind_of(error, words) == kind


def test_only_failures_that_no_retry_mends_are_unexpected():
    tally = judging.Tally()
    for error, words in ((status(503), 0), (status(500), 0), (httpx.ReadError("gone"), 2)):
        tally.failed(error, words)
    assert tally.unexpected == 1
    assert tally.failures == {"503": 1, "500": 1, "cut_off": 1}


@pytest.mark.parametrize(
    ("card", "text", "wrong"),
    [("a@1", "Paris.", 0), ("b@1", "Paris.", 1), ("a@1", "Rome.", 1), (None, "Paris.", 1)],
)
def test_an_answer_is_wrong_when_another_card_gave_it_or_its_card_says_something_else(
    card, text, wrong
):
    tally = judging.Tally()
    tally.answered(OF_A, {"card": card}, text)
    assert len(tally.wrong) == wrong


def test_a_task_that_is_gone_is_lost():
    rows = kills.rows(judging.Tally(), collections.Counter(router=2), {"t1": None}, "")
    named = {row.name: row for row in rows}
    assert named["kills_tasks_lost"].value == 1 and named["kills_tasks_lost"].reached is False
    assert named["kills_of_router"].value == 2


def test_the_overhead_leaves_the_embedding_out_round_by_round():
    took = {
        overhead.ENGINE: [10.0, 20.0, 30.0],
        overhead.EMBEDDING: [5.0, 5.0, 5.0],
        overhead.ROUTER: [6.0, 6.0, 6.0],
        overhead.NODE_BASE: [11.0, 21.0, 31.0],
        overhead.NODE_AUTO: [18.0, 28.0, 38.0],
        overhead.GATEWAY_BASE: [13.0, 23.0, 33.0],
        overhead.GATEWAY_AUTO: [19.0, 28.0, 39.0],
    }
    named = {row.name: row.value for row in overhead.rows(took, "")}
    assert named["overhead_ms"] == 4.0
    assert named["node_adds_ms"] == 1.0 and named["gateway_adds_ms"] == 2.0
    assert named["router_adds_ms"] == 1.0 and named["routing_adds_ms"] == 2.0


def test_the_gateway_stands_beside_the_faster_peer_and_ratios_are_of_one_round():
    def took(*seconds: float) -> list[throughput.Round]:
        heard = (("Who?", streams.Heard("Ann.", 0.5, 1.0)),)
        return [throughput.Round(one, heard) for one in seconds]

    found = {
        (way, count): seconds
        for count in throughput.CONCURRENT
        for way, seconds in (
            (throughput.GATEWAY, took(1.0, 2.0, 4.0)),
            (throughput.ENGINE, took(1.0, 1.0, 1.0)),
            ("serve", took(8.0, 8.0, 8.0)),
            ("serve_batching", took(3.0, 4.0, 4.0)),
        )
    }
    named = {row.name: row for row in throughput.rows(found, {"Who?": ("Ann.", 12)}, "")}
    row = named["tokens_per_s_64"]
    assert row.value == 6.0 and row.peer_value == 3.0
    assert row.ratio == 2.0 and row.reached is True
    assert row.peer == "transformers serve --continuous-batching"
    assert named["latency_64_p50_ms"].value == 1000.0
    assert named["serve_first_token_16_p99_ms"].value == 500.0
    assert named["gateway_same_answers"].value == 1.0


def test_growth_is_told_of_each_process():
    found = soak.Soaked(began_mib={"router": 100.0}, ended_mib={"router": 104.0}, errors=["x"])
    named = {row.name: row for row in soak.rows(found, 1.0, 2.0)}
    assert named["soak_growth_router_mib"].value == 4.0
    assert named["soak_errors"].reached is False


@contextlib.asynccontextmanager
async def saying(*parts: bytes) -> AsyncIterator[str]:
    """A server that sends these as chunks, one each."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for part in parts:
            writer.write(b"%x\r\n%b\r\n" % (len(part), part) if part else b"0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


WORD = b'data: {"choices": [{"delta": {"content": "Ann"}}]}\n\n'
END = (
    b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}], "skillmesh": {"card": "a"}}\n\n'
    b"data: [DONE]\n\n"
)


async def test_a_stream_is_heard_however_its_events_lie_in_chunks():
    async with saying(WORD[:9], WORD[9:] + WORD, END, b"") as address:
        heard = await streams.hear(address, streams.body("base", "Who?", 4), 10)
    assert heard.text == "AnnAnn" and heard.extras == {"card": "a"}
    assert 0 < heard.first_s <= heard.total_s


@pytest.mark.parametrize(
    "parts", [(WORD,), (WORD, b""), (WORD, b'data: {"error": {"message": "gone"}}\n\n', b"")]
)
async def test_a_stream_without_its_end_is_an_error(parts):
    async with saying(*parts) as address:
        with pytest.raises(streams.StreamError):
            await streams.hear(address, streams.body("base", "Who?", 4), 10)
