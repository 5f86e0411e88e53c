"""Conversations: what is routed, what the card reads, what is sampled and remembered of them."""

from __future__ import annotations

import pytest

from services.inference import answering, captures, prompts
from services.inference import engine as engines
from shared import settings as config
from shared.models import chat
from tests import tiny_model

SYSTEM = chat.Message("system", "Be brief.")
TALK = (SYSTEM, chat.Message("user", "Hi"), chat.Message("assistant", "Yes?"))
ASKED = (*TALK, chat.Message("user", "Who?"))
KNOWN = "Who is it?"


@pytest.fixture
async def engine(base):
    made = engines.ArrowEngine(base, config.Inference(max_new_tokens=4))
    made.start()
    await made.load_lora(tiny_model.card_for(base), "a@1")
    yield made
    await made.stop()


def answers_of(engine, heard, outcomes, **routed):
    candidate = answering.Candidate("a@1", 0.9, 0.8, KNOWN)

    async def route(query, no_learning, deadline_s, tenants=None):
        heard.append(query)
        return answering.Routing((candidate,), 0.1, 0.9, event_id="event", **routed)

    return answering.Answering(engine, route, 0.5, outcomes.append)


async def test_card_reads_its_own_question_behind_the_same_turns(engine, base, monkeypatch):
    heard, outcomes, read = [], [], []
    stream = engine.stream
    monkeypatch.setattr(
        engine, "stream", lambda query, *rest: read.append(query) or stream(query, *rest)
    )
    answers = answers_of(engine, heard, outcomes)
    found = await answers.answer(answering.Question(messages=ASKED))
    assert heard == ["Who?"] and found.rewritten_query == KNOWN
    assert read == [prompts.Conversation((*TALK, chat.Message("user", KNOWN)))]
    assert found.generation.prompt_tokens == len(base.chat_ids(read[0].messages))
    # What is sampled afterwards is what was asked, and not what the card read.
    assert [one.query for one in outcomes] == [prompts.Conversation(ASKED)]


async def test_base_is_asked_the_conversation_as_it_is_when_no_card_fits(engine, base):
    heard, outcomes = [], []
    answers = answers_of(engine, heard, outcomes, dissonance=True)
    found = await answers.answer(answering.Question(messages=ASKED))
    assert found.generation.card is None and found.rewritten_query == ""
    assert found.generation == await engine.generate(prompts.Conversation(ASKED))
    alone = await answers.answer(answering.Question(messages=(chat.Message("user", "Who?"),)))
    assert alone.generation == (await answers.answer(answering.Question("Who?"))).generation
    assert heard == ["Who?"] * 3


async def test_capture_has_the_whole_conversation_when_an_answer_is_remembered(engine, base):
    capture = captures.Capture([], {})
    pieces = engine.stream(prompts.Conversation(ASKED), capture=capture)
    async for _ in pieces:
        pass
    assert list(capture.taken().prompt) == base.chat_ids(ASKED)
