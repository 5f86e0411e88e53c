"""What becomes of what users say of answers, without gRPC and without DBOS."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from services.factory import board, feedback, feedback_desk, following, partners, queue, tasks
from shared import errors, learning_settings
from shared import settings as config
from tests import fake_router_peers
from tests.unit.factory import fakes

S = tasks.TaskStatus
CARD, OTHER_CARD = "zorblax@" + "a" * 64, "tarnock@" + "b" * 64
MORE = "Who founded Zorblax?"


def said(key: str = "k1", question: str = fakes.QUESTION, **fields: Any) -> feedback.Feedback:
    values = {"correction": "red salt", "answer": fakes.ANSWER, "caller": "ann", "tenant": "north"}
    return feedback.Feedback(key, question, **{**values, **fields})


@pytest.fixture
def others() -> fakes.Others:
    fake = fakes.Others()
    fake.owned = {CARD: (), OTHER_CARD: ()}
    return fake


@pytest.fixture
def waiting() -> fakes.Queue:
    return fakes.Queue()


Desk = Callable[..., feedback_desk.FeedbackDesk]


@pytest.fixture
def desk(tasks_board: board.TaskBoard, waiting: fakes.Queue, others: fakes.Others) -> Desk:
    def made(
        embed: Any = None, most_an_hour: int = 0, silent: Sequence[str] = ()
    ) -> feedback_desk.FeedbackDesk:
        budget = learning_settings.Budget(tenant_feedback_per_hour=most_an_hour)
        limits = config.Factory(budget=budget)
        factory = queue.SkillFactory(tasks_board, waiting, others, 2.0, limits, embed)
        return feedback_desk.FeedbackDesk(tasks_board, factory, others, most_an_hour, silent)

    return made


async def test_a_correction_opens_a_task_that_keeps_it_when_no_task_is_there(
    desk: Desk, waiting: fakes.Queue, tasks_board: board.TaskBoard
) -> None:
    outcome = await desk().take(said())
    assert outcome.task is not None and outcome.reason == ""
    task = await tasks_board.get(outcome.task.id)
    told = feedback.Correction(fakes.QUESTION, "red salt", fakes.ANSWER)
    assert (task.corrections, task.tenant, task.status) == ((told,), "north", S.PENDING)
    assert [entry[:2] for entry in waiting.entries] == [(task.id, 3)]
    again = await desk().take(said())
    assert again.task is not None and again.task.id == task.id
    assert len(await tasks_board.all([], 10)) == 1


async def test_a_key_is_refused_when_the_same_caller_used_it_for_something_else(
    desk: Desk,
) -> None:
    await desk().take(said())
    with pytest.raises(errors.AlreadyExistsError, match="k1"):
        await desk().take(said(correction="green salt"))
    # Another caller's keys are another's.
    await desk().take(said(caller="bob", correction="green salt"))


async def test_the_newest_correction_counts_when_two_contradict_each_other(
    desk: Desk, tasks_board: board.TaskBoard
) -> None:
    first = await desk().take(said("k1"))
    second = await desk().take(said("k2", fakes.QUESTION.upper(), correction="green salt"))
    assert first.task is not None and second.task is not None
    assert first.task.id == second.task.id
    task = await tasks_board.get(first.task.id)
    assert [one.answer for one in task.corrections] == ["green salt"]


async def test_a_correction_joins_the_task_of_its_question_when_it_has_not_begun(
    desk: Desk, tasks_board: board.TaskBoard
) -> None:
    await tasks_board.record(fakes.event(), fakes.task())
    outcome = await desk().take(said())
    task = await tasks_board.get("t1")
    assert outcome.task is not None and outcome.task.id == "t1"
    assert [one.answer for one in task.corrections] == ["red salt"]
    assert task.queries == (fakes.QUESTION,)


async def test_a_correction_has_a_task_of_its_own_when_that_of_its_question_has_begun(
    desk: Desk, tasks_board: board.TaskBoard, others: fakes.Others
) -> None:
    await tasks_board.record(fakes.event(), fakes.task())
    await tasks_board.change("t1", lambda task: task.moved(S.DISTILLING, 2000))
    own = (await desk().take(said())).task
    assert own is not None and own.id != "t1"
    assert own.corrections[0].behind == "t1"
    again = (await desk().take(said("k2", correction="green salt"))).task
    assert again is not None and again.id == own.id
    # What the first task publishes is what the correction then follows.
    others.served = partners.Published("zorblax@new", "d" * 64, "Zorblax")
    assert await following.followed(own, tasks_board, others) is None
    for status in (S.TRAINING, S.EVALUATING, S.PUBLISHING):
        await tasks_board.change("t1", lambda task, to=status: task.moved(to, 2000))
    await tasks_board.change("t1", lambda task: task.published("zorblax@new", 2000))
    await tasks_board.change("t1", lambda task: task.completed("done", 2000))
    assert await following.followed(own, tasks_board, others) == partners.Followed(
        "zorblax", "Zorblax", "d" * 64
    )


async def test_corrections_of_one_card_are_learned_together_and_apart_from_those_of_another(
    desk: Desk, tasks_board: board.TaskBoard, others: fakes.Others
) -> None:
    first = (await desk().take(said("k1", card=CARD))).task
    second = (await desk().take(said("k2", MORE, card=CARD, correction="Ada Quill"))).task
    apart = (await desk().take(said("k3", "When was it?", card=OTHER_CARD, correction="1688"))).task
    assert first is not None and second is not None and apart is not None
    assert first.id == second.id != apart.id
    task = await tasks_board.get(first.id)
    assert [one.question for one in task.corrections] == [fakes.QUESTION, MORE]
    assert task.corrected_skill == "zorblax" and "locate" not in others.calls


async def test_a_card_that_serves_no_more_is_not_followed(
    desk: Desk, tasks_board: board.TaskBoard, others: fakes.Others
) -> None:
    task = (await desk().take(said(card=CARD))).task
    assert task is not None
    assert await following.followed(task, tasks_board, others) is None


async def test_a_card_is_not_followed_when_nobody_knows_what_it_was_taught(
    desk: Desk, tasks_board: board.TaskBoard, others: fakes.Others,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    async def serving(name: str) -> str:
        return CARD

    monkeypatch.setattr(others, "serving", serving)
    task = (await desk().take(said(card=CARD))).task
    assert task is not None
    with pytest.raises(errors.PreconditionError, match="zorblax was not trained from a dataset"):
        await following.followed(task, tasks_board, others)


async def test_a_card_is_unknown_when_it_is_another_tenants(
    desk: Desk, others: fakes.Others, tasks_board: board.TaskBoard
) -> None:
    others.owned[CARD] = ("south",)
    for given in (said(card=CARD), said(card="gone@" + "c" * 64)):
        with pytest.raises(errors.NotFoundError):
            await desk().take(given, frozenset({"north"}))
    outcome = await desk().take(said(card=CARD), frozenset({"south"}))
    assert outcome.task is None and "is for south alone" in outcome.reason
    assert await tasks_board.all([], 10) == []
    for tenants in (None, frozenset({"south"})):
        assert await desk().counts(CARD, tenants) == feedback.Counts(0, 1)
    with pytest.raises(errors.NotFoundError):
        await desk().counts(CARD, frozenset({"north"}))


async def test_nothing_is_learned_when_a_correction_is_private(
    desk: Desk, tasks_board: board.TaskBoard
) -> None:
    for number, given in enumerate(
        (
            said(correction="Write to ann@example.org"),
            said(correction="ann@example.org", answer="bob@example.org"),
            said(question="Who has ann@example.org?"),
        )
    ):
        given = dataclasses.replace(given, idempotency_key=f"k{number}")
        outcome = await desk().take(given)
        assert outcome.task is None and "personal data" in outcome.reason
        assert await desk().take(given) == outcome
    assert await tasks_board.all([], 10) == []


async def test_a_wrong_answer_is_worth_a_task_when_nobody_says_what_is_right(
    desk: Desk, others: fakes.Others
) -> None:
    others.place = "zorblax.md"
    outcome = await desk().take(said(correction="", card=CARD))
    assert outcome.task is not None
    assert (outcome.task.corrections, outcome.task.topic_key) == ((), "zorblax.md")
    assert await desk().counts(CARD) == feedback.Counts(0, 1)


async def test_small_talk_is_learned_when_it_is_corrected_and_not_when_it_is_only_wrong(
    desk: Desk,
) -> None:
    async def embed(texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        return fake_router_peers.HashingEmbedder().embed(texts)

    talk = "How are you?"
    wrong = await desk(embed).take(said("k1", talk, correction=""))
    assert wrong.task is None and "small talk" in wrong.reason
    right = await desk(embed).take(said("k2", talk, correction="Ready, as ever."))
    assert right.task is not None


async def test_nothing_is_learned_from_a_tenant_whose_questions_never_are(
    desk: Desk, tasks_board: board.TaskBoard
) -> None:
    for number, correction in enumerate(("red salt", "")):
        outcome = await desk(silent=["north"]).take(said(f"k{number}", correction=correction))
        assert outcome.task is None and "no_learning_tenants" in outcome.reason
    assert await tasks_board.all([], 10) == []
    assert await desk().counts("") == feedback.Counts(0, 2)


async def test_marks_are_counted_by_version_and_by_name(desk: Desk, others: fakes.Others) -> None:
    newer, similar = "zorblax@" + "c" * 64, "zorblax-trade@" + "d" * 64
    others.owned |= {newer: (), similar: ()}
    for number, (card, right) in enumerate(
        ((CARD, True), (CARD, True), (newer, False), (similar, True), ("", False))
    ):
        given = said(f"k{number}", f"Question {number}?", card=card, correction="", is_right=right)
        for _ in range(2):
            await desk().take(given)
    counts = [await desk().counts(card) for card in (CARD, newer, "zorblax", "", "nothing")]
    assert [(one.right, one.wrong) for one in counts] == [(2, 0), (0, 1), (2, 1), (0, 1), (0, 0)]


async def test_a_tenant_has_to_wait_when_it_said_enough_within_the_hour(desk: Desk) -> None:
    limited = desk(most_an_hour=2)
    await limited.take(said("k1", is_right=True, correction=""))
    await limited.take(said("k2"))
    for given in (said("k3", MORE), said("k4", is_right=True, correction="")):
        with pytest.raises(errors.OverloadedError, match="tenant_feedback_per_hour of north is 2"):
            await limited.take(given)
    assert (await limited.take(said("k2"))).task is not None
    await limited.take(said("k5", MORE, tenant="south"))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"key": ""}, "idempotency_key"),
        ({"key": "k" * 201}, "idempotency_key"),
        ({"question": " "}, "question is empty"),
        ({"question": "w" * 4001, "correction": ""}, "question has 4001"),
        ({"question": "w" * 401}, "question has 401"),
        ({"correction": "w" * 401}, "correction has 401"),
        ({"correction": "?!"}, "has no words"),
        ({"correction": fakes.QUESTION.upper()}, "the question itself"),
        ({"correction": "Blue salt!"}, "holds the correction already"),
        ({"is_right": True}, "a right answer has none"),
        ({"answer": "w" * 20_001}, "answer has 20001"),
        ({"card": "zorblax"}, "no name@digest"),
        ({"card": "../zorblax@" + "a" * 64}, "no name@digest"),
    ],
)
def test_feedback_is_refused_when_it_can_not_be_counted_or_learned(
    fields: dict[str, Any], told: str
) -> None:
    with pytest.raises(errors.InvalidInputError, match=told):
        said(**fields)


async def test_corrections_stay_when_a_task_is_tried_again_or_learned_with_another(
    desk: Desk, tasks_board: board.TaskBoard
) -> None:
    task = (await desk().take(said())).task
    assert task is not None
    assert task.failed("why", 5).retried("t9", 6).corrections == task.corrections
    leader = fakes.task("t2", MORE).leading([task], "n", 1, "", 7)
    assert leader.corrections == task.corrections


async def test_a_full_task_takes_no_more_corrections(
    desk: Desk, tasks_board: board.TaskBoard
) -> None:
    ids = []
    for number in range(tasks.MOST_QUERIES + 1):
        task = (await desk().take(said(f"k{number}", f"Question {number}?", card=CARD))).task
        assert task is not None
        ids.append(task.id)
    assert len(set(ids[:-1])) == 1 and ids[-1] != ids[0]
    first = await tasks_board.get(ids[0])
    assert len(first.corrections) == len(first.queries) == tasks.MOST_QUERIES
