"""Who answers: what the router says against what is resident."""

from __future__ import annotations

import pytest

from services.inference import answering
from services.inference import engine as engines
from shared import answer_signals, errors
from shared import settings as config
from tests import tiny_model


class FakeRouter:
    def __init__(self, routing: answering.Routing) -> None:
        self.routing = routing
        self.error: errors.SkillmeshError | None = None
        self.asked: list[tuple[str, bool, float]] = []

    async def route(
        self, query: str, no_learning: bool, deadline_s: float, tenants=None
    ) -> answering.Routing:
        self.asked.append((query, no_learning, deadline_s))
        if self.error is not None:
            raise self.error
        return self.routing


def _routing(*candidates, none=0.1, dissonance=False):
    return answering.Routing(
        tuple(answering.Candidate(card, share) for card, share in candidates),
        none_probability=none,
        confidence=1 - none,
        dissonance=dissonance,
        event_id="event" if dissonance else "",
    )


@pytest.fixture
async def engine(base):
    made = engines.ArrowEngine(base, config.Inference(max_new_tokens=4))
    made.start()
    for key, seed in (("a@1", 1), ("a@2", 2), ("b@1", 3)):
        await made.load_lora(tiny_model.card_for(base, seed=seed), key)
    yield made
    await made.stop()


@pytest.mark.parametrize(
    ("routing", "card"),
    [
        (_routing(("a@2", 0.8), ("b@1", 0.1)), "a@2"),
        (_routing(("gone@1", 0.5), ("b@1", 0.4)), "b@1"),
        (_routing(("gone@1", 0.85), ("b@1", 0.05)), None),
        (_routing(("b@1", 0.45), none=0.55), "b@1"),
        (_routing(("a@2", 0.3), none=0.7, dissonance=True), None),
        (_routing(none=1.0, dissonance=True), None),
    ],
)
async def test_best_resident_card_answers_when_the_router_decides(engine, routing, card):
    router = FakeRouter(routing)
    answers = answering.Answering(engine, router.route)
    found = await answers.answer(answering.Question("Who?", "auto", no_learning=True))
    assert found.generation.card == card
    assert found.routing == routing
    assert router.asked == [("Who?", True, answering.ROUTE_DEADLINE_S)]


@pytest.mark.parametrize(
    ("similarity", "nearest", "limit", "asked"),
    [
        (0.8, "Who is it?", 0.5, "Who is it?"),
        (0.5, "Who is it?", 0.5, "Who is it?"),
        (0.4, "Who is it?", 0.5, "Who?"),
        (0.8, "Who is it?", None, "Who?"),
        (0.8, "", 0.5, "Who?"),
        (1.0, "Who?", 0.5, "Who?"),
    ],
)
async def test_routed_question_is_read_as_a_similar_one_that_the_card_knows(
    engine, monkeypatch, similarity, nearest, limit, asked
):
    heard = []
    stream = engine.stream
    monkeypatch.setattr(
        engine, "stream", lambda query, *rest: heard.append(query) or stream(query, *rest)
    )
    routing = answering.Routing((answering.Candidate("a@2", 0.9, similarity, nearest),), 0.1, 0.9)
    answers = answering.Answering(engine, FakeRouter(routing).route, limit)
    found = await answers.answer(answering.Question("Who?"))
    assert heard == [asked]
    assert found.rewritten_query == (asked if asked != "Who?" else "")


@pytest.mark.parametrize("model", ["a", "base"])
async def test_question_is_not_rewritten_when_the_model_is_named(engine, model):
    routing = answering.Routing((answering.Candidate("a@2", 0.9, 0.8, "Who is it?"),), 0.1, 0.9)
    answers = answering.Answering(engine, FakeRouter(routing).route, 0.5)
    found = await answers.answer(answering.Question("Who?", model))
    assert found.rewritten_query == ""


@pytest.mark.parametrize("error", [errors.UnavailableError("x"), errors.DeadlineError("x")])
async def test_base_answers_when_the_router_is_away(engine, error):
    router = FakeRouter(_routing(("a@2", 0.9)))
    router.error = error
    found = await answering.Answering(engine, router.route).answer(answering.Question("Who?"))
    assert found.generation.card is None and found.generation.new_tokens
    assert (found.routing.confidence, found.routing.dissonance) == (0.0, False)


@pytest.mark.parametrize(
    ("model", "card"),
    [("base", None), ("a", "a@2"), ("a@latest", "a@2"), ("a@1", "a@1"), ("b", "b@1")],
)
async def test_router_is_not_asked_when_the_model_is_named(engine, model, card):
    router = FakeRouter(_routing(("b@1", 0.9)))
    answers = answering.Answering(engine, router.route)
    found = await answers.answer(answering.Question("Who?", model))
    assert found.generation.card == card
    assert router.asked == []


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        (answering.Question("Who?", "c"), errors.NotFoundError),
        (answering.Question("Who?", "a@3"), errors.NotFoundError),
        (answering.Question("Who?", "Not A Name"), errors.InvalidInputError),
        (answering.Question(""), errors.InvalidInputError),
        (answering.Question(" \n"), errors.InvalidInputError),
        (answering.Question("x" * 8_001), errors.InvalidInputError),
    ],
)
async def test_question_is_refused_when_it_is_wrong(engine, question, kind):
    router = FakeRouter(_routing())
    with pytest.raises(kind):
        await answering.Answering(engine, router.route).answer(question)
    assert router.asked == []


class _Reports:
    def __init__(self) -> None:
        self.told: list[tuple[str, str, answer_signals.AnswerSignals | None]] = []

    def __call__(self, outcome: answering.Outcome) -> None:
        assert outcome.answer_s > 0
        self.told.append((outcome.event_id, outcome.query, outcome.signals))


async def test_signals_are_told_when_an_event_waits_for_the_answer(engine):
    reports = _Reports()
    router = FakeRouter(_routing(none=1.0, dissonance=True))
    answers = answering.Answering(engine, router.route, report=reports)
    found = await answers.answer(answering.Question("Who?"))
    [(event_id, query, signals)] = reports.told
    assert (event_id, query) == ("event", "Who?")
    assert signals.mean_logprob == found.generation.certainty.mean_logprob < 0
    assert signals.mean_entropy > 0 and signals.tokens >= found.generation.new_tokens
    assert not signals.admits_ignorance


async def test_no_signals_are_told_when_the_answer_is_given_up(engine):
    reports = _Reports()
    router = FakeRouter(_routing(none=1.0, dissonance=True))
    answers = answering.Answering(engine, router.route, report=reports)
    pieces = answers.stream(answering.Question("Who?", max_new_tokens=150))
    await anext(pieces)
    await pieces.aclose()
    assert reports.told == [("event", "Who?", None)]


async def test_nothing_is_told_when_no_event_waits(engine):
    reports = _Reports()
    answers = answering.Answering(engine, FakeRouter(_routing(("a@2", 0.9))).route, report=reports)
    await answers.answer(answering.Question("Who?"))
    await answers.answer(answering.Question("Who?", "base"))
    assert reports.told == []
