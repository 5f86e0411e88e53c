"""What is sampled after an answer, and what never happens for its sake."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Sequence

import pytest

from services.inference import answering, generations, meanings, semantic_entropy
from services.inference import engine as engines
from shared import answer_signals, errors
from shared import settings as config
from shared.models import base as bases
from shared.models import embedder
from tests import fake_router_peers

SIGNALS = answer_signals.AnswerSignals(-0.01, 0.05, 5, False)
KNOWN, UNKNOWN = "What is the capital of France?", "Who painted the Night Watch?"


class Router:
    """Embeds when it may, and keeps what it is told."""

    def __init__(self) -> None:
        self.may_embed = asyncio.Event()
        self.may_embed.set()
        self.error: errors.SkillmeshError | None = None
        self.embedded: list[list[str]] = []
        self.told: asyncio.Queue[tuple[str, answer_signals.AnswerSignals | None]] = asyncio.Queue()

    async def embed(self, texts: Sequence[str]) -> meanings.Vectors:
        self.embedded.append(list(texts))
        await self.may_embed.wait()
        if self.error is not None:
            raise self.error
        return fake_router_peers.HashingEmbedder().embed(texts)

    def report(self, event_id: str, signals: answer_signals.AnswerSignals | None) -> None:
        self.told.put_nowait((event_id, signals))

    async def heard(self) -> tuple[str, answer_signals.AnswerSignals | None]:
        return await asyncio.wait_for(self.told.get(), 60)


class Scripted:
    """An engine that gives these answers, one after the other."""

    waiting, has_room = 0, True

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, float, int | None]] = []

    async def stream(
        self, query, card=None, max_new_tokens=0, deadline_s=None, sampling=None, capture=None
    ):
        assert card is None and 0 < max_new_tokens <= semantic_entropy.LONGEST_TOKENS
        self.asked.append((query, sampling.temperature, sampling.seed))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        yield generations.Piece(answer)
        yield generations.Piece("", generations.Generation(answer, None, 3, 2, "stop"))


def outcome(event_id: str = "event", query: str = "Where?", answer_s: float = 0.0):
    return answering.Outcome(event_id, query, SIGNALS, answer_s)


def asker(engine, router, samples=5, within_s=3600.0) -> semantic_entropy.SemanticEntropy:
    return semantic_entropy.SemanticEntropy(
        engine, router.embed, router.report, samples, within_s, rest_s=0.0
    )


@contextlib.asynccontextmanager
async def running(base, **options):
    engine = engines.ArrowEngine(base, config.Inference(max_new_tokens=4, **options))
    engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


@pytest.mark.parametrize(
    ("answers", "nats", "embedded"),
    [
        (["Paris."] * 5, 0.0, []),
        (["Paris.", "paris", "PARIS!", "paris.", "Paris"], 0.0, []),
        (
            ["Paris.", "paris", "It is Paris.", "Rome.", ""],
            0.950271,
            ["Paris.", "It is Paris.", "Rome."],
        ),
        (["Oslo.", "Rome.", "Oslo.", "Rome.", "Oslo."], 0.673012, ["Oslo.", "Rome."]),
    ],
)
async def test_semantic_entropy_is_told_when_the_answer_was_sampled(answers, nats, embedded):
    engine, router = Scripted(*answers), Router()
    asking = asker(engine, router)
    asking.report(outcome())
    event_id, signals = await router.heard()
    assert event_id == "event"
    assert signals.semantic_entropy == pytest.approx(nats, abs=1e-6)
    assert dataclasses.replace(signals, semantic_entropy=None) == SIGNALS
    assert engine.asked == [("Where?", 1.0, seed) for seed in range(5)]
    assert router.embedded == ([embedded] if embedded else [])
    assert (asking.sampled, asking.dropped) == (1, 0)


async def test_entropy_is_higher_when_the_base_does_not_know():
    router, read = Router(), embedder.Embedder()

    async def embed(texts: Sequence[str]) -> meanings.Vectors:
        return read.embed(texts)

    router.embed = embed
    found = {}
    async with running(bases.load(bases.EMBEDDED)) as engine:
        asking = asker(engine, router, samples=8)
        for query in (KNOWN, UNKNOWN, UNKNOWN):
            asking.report(outcome(query=query))
            _, signals = await router.heard()
            # The same seeds: asked again, a question has the same entropy.
            assert found.setdefault(query, signals.semantic_entropy) == signals.semantic_entropy
            await asyncio.sleep(0)
    assert found[KNOWN] == 0.0 < 0.5 < found[UNKNOWN]


async def test_answer_is_there_when_the_samples_are_not(base):
    async def route(query, no_learning, deadline_s, tenants):
        return answering.Routing(dissonance=True, event_id="event")

    router = Router()
    router.may_embed.clear()
    async with running(base) as engine:
        asking = asker(engine, router, samples=3)
        answers = answering.Answering(engine, route, report=asking.report)
        async with asyncio.timeout(60):
            found = await answers.answer(answering.Question("Who?"))
        assert found.generation.new_tokens and router.told.empty()
        router.may_embed.set()
        _, signals = await router.heard()
    assert signals.semantic_entropy > 0
    assert signals.mean_logprob == found.generation.certainty.mean_logprob


async def test_answer_goes_without_when_another_is_being_sampled():
    router = Router()
    router.may_embed.clear()
    asking = asker(Scripted(*"abcd"), router, samples=2)
    asking.report(outcome("first"))
    asking.report(outcome("second"))
    assert await router.heard() == ("second", SIGNALS)
    assert (asking.sampled, asking.dropped) == (0, 1)
    router.may_embed.set()
    event_id, signals = await router.heard()
    assert (event_id, signals.semantic_entropy) == ("first", pytest.approx(0.693147, abs=1e-6))
    await asyncio.sleep(0)
    asking.report(outcome("third"))
    event_id, signals = await router.heard()
    assert (event_id, signals.semantic_entropy) == ("third", pytest.approx(0.693147, abs=1e-6))
    assert (asking.sampled, asking.dropped) == (2, 1)


async def test_samples_are_given_up_when_somebody_waits_for_the_model(base):
    router = Router()
    async with running(base, batch_rows=1) as engine:
        stream, users = engine.stream, []

        def with_user(*asked):
            if not users:
                user = engine.generate("Who?", max_new_tokens=100)
                users.append(asyncio.create_task(user))
            return stream(*asked)

        engine.stream = with_user
        asking = asker(engine, router)
        asking.report(outcome())
        assert await router.heard() == ("event", SIGNALS)
        assert (await users[0]).new_tokens
        assert (asking.sampled, asking.dropped) == (0, 1)


@pytest.mark.parametrize(
    ("waiting", "has_room", "asked"), [(0, False, 0), (1, True, 1)], ids=["full", "waited for"]
)
async def test_no_more_is_sampled_when_the_model_is_busy(waiting, has_room, asked):
    engine, router = Scripted("a", "b"), Router()
    engine.waiting, engine.has_room = waiting, has_room
    asking = asker(engine, router, samples=2)
    asking.report(outcome())
    assert await router.heard() == ("event", SIGNALS)
    assert (len(engine.asked), asking.dropped) == (asked, 1)


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        (("a", "b"), errors.UnavailableError("no router")),
        ((errors.OverloadedError("full"),), None),
        ((RuntimeError("no memory"),), None),
    ],
)
async def test_answer_is_reported_without_when_sampling_fails(answers, error):
    router = Router()
    router.error = error
    asking = asker(Scripted(*answers), router, samples=2)
    asking.report(outcome())
    assert await router.heard() == ("event", SIGNALS)
    assert (asking.sampled, asking.dropped) == (0, 1)


async def test_nothing_is_sampled_when_the_answer_took_all_the_time_there_is():
    engine, router = Scripted("a", "b"), Router()
    asking = asker(engine, router, 2, within_s=3600.0)
    asking.report(outcome(answer_s=3600.0))
    assert await router.heard() == ("event", SIGNALS)
    assert (engine.asked, asking.dropped) == ([], 1)


async def test_answer_is_reported_without_when_the_node_stops():
    router = Router()
    router.may_embed.clear()
    asking = asker(Scripted("a", "b"), router, samples=2)
    asking.report(outcome())
    while not router.embedded:
        await asyncio.sleep(0)
    await asking.close()
    assert await router.heard() == ("event", SIGNALS)


@pytest.mark.parametrize(("samples", "signals"), [(0, SIGNALS), (5, None)])
async def test_report_leaves_at_once_when_there_is_nothing_to_sample(samples, signals):
    engine, router = Scripted(), Router()
    asking = asker(engine, router, samples)
    asking.report(answering.Outcome("event", "Where?", signals, 0.1))
    assert router.told.get_nowait() == ("event", signals)
    assert (engine.asked, asking.dropped) == ([], 0)
    await asking.close()
