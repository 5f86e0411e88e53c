"""With the real embedder: what small talk and rewordings look like to it."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

import numpy as np
import pytest

from services.factory import meanings
from shared import errors, learning_settings
from shared.models import embedder as embedders
from tests import fake_router_peers
from tests.unit.factory import fakes

LIMITS = learning_settings.Judgement()
DOCUMENTS = pathlib.Path(__file__).parents[3] / "benchmarks" / "documents"
SMALL_TALK = [
    "hello", "hi there", "hey", "Good morning", "thanks!", "thank you so much", "tell me a joke",
    "Tell me something funny.", "bye", "See you tomorrow.", "How are you today?", "who are you",
    "What can you do?", "Are you a robot?", "What is your name?", "How old are you?", "I love you",
    "Happy birthday!", "Sing me a song", "I am bored", "Have a nice day", "Please repeat that.",
]  # fmt: skip


@pytest.fixture(scope="module")
def embedder() -> embedders.Embedder:
    return embedders.Embedder()


def of(embedder: object) -> meanings.Meanings:
    async def embed(texts: Sequence[str]) -> meanings.Vectors:
        return embedder.embed(texts)  # type: ignore[attr-defined]

    return meanings.Meanings(embed, LIMITS.same_gap)


async def test_small_talk_is_told_from_questions_about_documents(
    embedder: embedders.Embedder,
) -> None:
    made = of(embedder)
    await made.of("warm up")
    asked = [
        fact["ask"]
        for path in sorted(DOCUMENTS.glob("*.json"))
        for fact in json.loads(path.read_text())["facts"]
    ]
    talk = [made.small_talk(vector) for vector in embedder.embed(SMALL_TALK)]
    questions = [made.small_talk(vector) for vector in embedder.embed(asked)]
    assert min(talk) >= LIMITS.small_talk, dict(zip(SMALL_TALK, talk, strict=True))
    assert len(asked) > 100 and max(questions) < LIMITS.small_talk


async def test_rewording_is_alike_and_other_questions_are_not(
    embedder: embedders.Embedder,
) -> None:
    made = of(embedder)
    known = {"t1": "What is the capital of Zorblax?", "t2": "What does error 17 mean?"}
    for task_id, query in known.items():
        vector = await made.of(query)
        assert vector is not None
        made.remember(task_id, query, vector)
    asked = {
        "Which city is the capital of Zorblax?": "t1",
        "Zorblax: capital city?": "t1",
        "What is the meaning of error 17?": "t2",
        "What does error 18 mean?": "",
        "How do I boil an egg?": "",
    }
    for query, task_id in asked.items():
        vector = await made.of(query)
        assert vector is not None
        assert made.alike(query, vector) == task_id, query


async def test_open_tasks_are_taken_up_and_ended_ones_forgotten() -> None:
    made = of(fake_router_peers.HashingEmbedder())
    query = fakes.QUESTION
    vector = await made.of(query)
    assert vector is not None
    assert made.alike(query, vector) == ""
    await made.keep_only([fakes.task("t1"), fakes.task("t2", "Who else?")])
    assert made.alike(query, vector) == "t1"
    await made.keep_only([fakes.task("t2", "Who else?")])
    assert made.alike(query, vector) == ""


async def test_nothing_is_compared_when_the_router_is_away() -> None:
    async def away(texts: Sequence[str]) -> meanings.Vectors:
        raise errors.UnavailableError("no router")

    made = meanings.Meanings(away, 0.8)
    assert await made.of("Who?") is None
    await made.keep_only([fakes.task("t1")])
    vector = np.ones(4, dtype=np.float32) / 2
    assert (made.small_talk(vector), made.alike("Who?", vector)) == (0.0, "")


async def test_memory_is_bounded_when_tasks_and_questions_are_many() -> None:
    made = of(fake_router_peers.HashingEmbedder())
    vector = np.ones(4, dtype=np.float32) / 2
    for number in range(5_000):
        made.remember(f"t{number}", "Who?", vector)
    for number in range(100):
        made.remember("t4999", f"Who {number}?", vector)
    assert len(made._of_tasks) == meanings._MOST_TASKS
    assert len(made._of_tasks["t4999"]) == meanings._MOST_OF_A_TASK
