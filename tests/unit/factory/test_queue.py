from __future__ import annotations

import asyncio
import dataclasses
import pathlib
from collections.abc import Sequence

import pytest

from services.factory import board, ledger, meanings, queue, tasks
from shared import answer_signals, costs, errors, learning_settings, questions
from shared import settings as config
from tests import fake_router_peers
from tests.unit.factory import fakes

S = tasks.TaskStatus
LEADS = ["", "so", "now", "oh", "say", "tell", "well", "and", "hm", "please"]
ENDS = list("abcdefghij")
GAPS = ["Who founded Zorblax?", "When was Quillhaven sold?", "Name every river near Tarnock."]


@pytest.fixture
def others() -> fakes.Others:
    return fakes.Others()


@pytest.fixture
def waiting() -> fakes.Queue:
    return fakes.Queue()


@pytest.fixture
def factory(
    tasks_board: board.TaskBoard, waiting: fakes.Queue, others: fakes.Others
) -> queue.SkillFactory:
    return queue.SkillFactory(tasks_board, waiting, others, gather_s=2.0)


async def test_task_waits_for_further_questions_when_it_is_new(
    factory: queue.SkillFactory, waiting: fakes.Queue
) -> None:
    task, created = await factory.report_dissonance(fakes.event())
    assert created
    assert waiting.entries == [(task.id, 3, 2.0)]
    assert task.stage_times == (tasks.StageTime("detect", 0.6),)


async def test_event_is_kept_when_its_question_cannot_be_located(
    factory: queue.SkillFactory, others: fakes.Others
) -> None:
    others.locate_error = errors.UnavailableError("no distiller")
    task, created = await factory.report_dissonance(fakes.event())
    assert created and task.topic_key == ""


async def test_question_is_not_located_again_when_an_open_task_has_it(
    factory: queue.SkillFactory, others: fakes.Others, waiting: fakes.Queue
) -> None:
    await factory.report_dissonance(fakes.event("e1"))
    await factory.report_dissonance(fakes.event("e2", fakes.QUESTION.lower()))
    assert others.calls == ["locate"]
    assert len(waiting.entries) == 1


async def test_second_task_is_not_opened_when_the_place_is_the_same(
    factory: queue.SkillFactory, others: fakes.Others
) -> None:
    others.place = "zorblax.md"
    first, _ = await factory.report_dissonance(fakes.event("e1"))
    second, created = await factory.report_dissonance(fakes.event("e2", "Who founded it?"))
    assert (second.id, created) == (first.id, False)
    assert second.queries == (fakes.QUESTION, "Who founded it?")


async def test_taught_topic_starts_at_once_when_it_is_new(
    factory: queue.SkillFactory, waiting: fakes.Queue
) -> None:
    task = await factory.teach("salt", "", 5, "k")
    assert (await factory.teach("salt", "", 5, "k")).id == task.id
    assert (await factory.teach(" SALT", "", 0, "")).id == task.id
    assert waiting.entries == [(task.id, 5, 0.0)]
    assert task.queries == ()


@pytest.mark.parametrize(("topic", "document"), [("", ""), ("a", "b"), (" ", "")])
async def test_teaching_is_refused_when_not_one_thing_is_named(
    factory: queue.SkillFactory, topic: str, document: str
) -> None:
    with pytest.raises(errors.InvalidInputError):
        await factory.teach(topic, document, 0, "")


async def test_task_leaves_the_queue_when_it_is_cancelled(
    factory: queue.SkillFactory, waiting: fakes.Queue
) -> None:
    task, _ = await factory.report_dissonance(fakes.event())
    assert (await factory.cancel(task.id)).status is S.CANCELLED
    assert waiting.cancelled == [task.id]
    with pytest.raises(errors.NotFoundError):
        await factory.cancel("nobody")


async def test_teachers_are_asked_no_more_and_their_costs_noted_when_a_task_is_cancelled(
    factory: queue.SkillFactory, others: fakes.Others
) -> None:
    task, _ = await factory.report_dissonance(fakes.event())
    others.spent = costs.Spent(calls=2, tokens_in=300, tokens_out=40, dollars=0.5)
    cancelled = await factory.cancel(task.id)
    assert others.cancelled == [task.id, f"{task.id}-more"]
    assert (cancelled.status, cancelled.spent) == (S.CANCELLED, others.spent)


async def test_open_task_is_returned_when_it_covers_the_gap_of_a_retried_one(
    factory: queue.SkillFactory,
) -> None:
    first, _ = await factory.report_dissonance(fakes.event("e1"))
    await factory.cancel(first.id)
    second, created = await factory.report_dissonance(fakes.event("e2"))
    assert created
    assert (await factory.retry(first.id, "k")).id == second.id


async def test_open_tasks_are_handed_in_again_when_the_factory_starts(
    factory: queue.SkillFactory, waiting: fakes.Queue, tasks_board: board.TaskBoard
) -> None:
    await tasks_board.record(fakes.event("e1"), fakes.task("lost"))
    await tasks_board.record(fakes.event("e2", "b?"), fakes.task("broken", "b?"))
    waiting.over = {"broken"}
    await factory.recover()
    assert [entry[0] for entry in waiting.entries] == ["lost"]
    assert (await factory.get("broken")).status is S.FAILED


async def test_listing_is_refused_when_the_limit_is_negative(factory: queue.SkillFactory) -> None:
    with pytest.raises(errors.InvalidInputError, match="limit"):
        await factory.list([], -1)


SURE = answer_signals.AnswerSignals(-0.01, 0.05, 5, False)


async def hashed(texts: Sequence[str]) -> meanings.Vectors:
    return fake_router_peers.HashingEmbedder().embed(texts)


def sensible(
    tasks_board: board.TaskBoard, waiting: fakes.Queue, others: fakes.Others, **limits: int
) -> queue.SkillFactory:
    chosen = config.Factory(
        # For the vectors of words that the fake embedder makes.
        judgement=learning_settings.Judgement(small_talk=0.99, same_gap=0.5),
        budget=learning_settings.Budget(**limits),
    )
    return queue.SkillFactory(tasks_board, waiting, others, 2.0, chosen, hashed)


async def test_nothing_is_learned_and_the_reason_kept_when_the_base_is_sure(
    tasks_board: board.TaskBoard, waiting: fakes.Queue, others: fakes.Others
) -> None:
    factory = sensible(tasks_board, waiting, others)
    event = dataclasses.replace(fakes.event(), signals=SURE)
    looking = asyncio.create_task(factory.find("e1", 60))
    await asyncio.sleep(0)
    for _ in range(2):
        with pytest.raises(errors.PreconditionError, match="seems sure"):
            await factory.report_dissonance(event)
    with pytest.raises(errors.PreconditionError, match="seems sure"):
        await looking
    with pytest.raises(errors.PreconditionError, match="make teach"):
        await factory.find("e1", 0)
    assert not waiting.entries and not await factory.list([], 0)
    taught = await factory.teach(fakes.QUESTION, "", 0, "k")
    assert [entry[0] for entry in waiting.entries] == [taught.id]


async def test_nothing_is_learned_when_it_is_small_talk(
    tasks_board: board.TaskBoard, waiting: fakes.Queue, others: fakes.Others
) -> None:
    factory = sensible(tasks_board, waiting, others)
    with pytest.raises(errors.PreconditionError, match="small talk"):
        await factory.report_dissonance(fakes.event("e1", "tell me a JOKE"))
    assert "locate" not in others.calls


async def test_one_urgent_task_is_made_when_a_gap_is_asked_again_and_again_in_other_words(
    tasks_board: board.TaskBoard, waiting: fakes.Queue, others: fakes.Others
) -> None:
    factory = sensible(tasks_board, waiting, others, tasks_per_hour=5)
    asked = [f"{lead} {fakes.QUESTION} {end}" for lead in LEADS for end in ENDS]
    assert len({questions.fold(text) for text in asked}) == 100
    seen = {
        (await factory.report_dissonance(fakes.event(f"e{at}", text)))[0].id
        for at, text in enumerate(asked)
    }
    [task] = await factory.list([], 0)
    assert seen == {task.id}
    assert (task.demand, task.priority) == (100, 5)
    assert len(task.queries) == tasks.MOST_QUERIES
    assert len(waiting.entries) == 1


async def test_task_waits_with_a_reason_and_starts_when_the_hour_is_over(
    tmp_path: pathlib.Path, waiting: fakes.Queue, others: fakes.Others
) -> None:
    now_ms = 10_000_000
    url = f"sqlite:///{tmp_path / 'factory.sqlite'}"

    async def restarted() -> tuple[board.TaskBoard, queue.SkillFactory]:
        opened = board.TaskBoard(ledger.Ledger(url), lambda: now_ms)
        factory = sensible(opened, waiting, others, tenant_tasks_per_hour=1)
        await factory.recover()
        return opened, factory

    opened, factory = await restarted()
    for at, gap in enumerate(GAPS):
        event = fakes.event(f"e{at}", gap)
        tenant = "acme" if at < 2 else "other"
        await factory.report_dissonance(dataclasses.replace(event, tenant=tenant))
    started = [entry[0] for entry in waiting.entries]
    [held] = [task for task in await factory.list([], 0) if task.id not in started]
    assert (held.trigger_query, held.tenant) == (GAPS[1], "acme")
    assert held.status is S.PENDING
    assert "tenant_tasks_per_hour of acme is 1" in held.detail
    await opened.close()
    now_ms += 3_599_000
    opened, factory = await restarted()
    assert held.id not in [entry[0] for entry in waiting.entries]
    now_ms += 2_000
    admitting = asyncio.create_task(factory.admit_for_ever(every_s=0.01))
    async with asyncio.timeout(30):
        while held.id not in [entry[0] for entry in waiting.entries]:
            await asyncio.sleep(0.01)
    admitting.cancel()
    await asyncio.gather(admitting, return_exceptions=True)
    assert (await factory.get(held.id)).detail == ""
    await opened.close()


async def test_most_wanted_task_starts_first_when_the_budget_has_room_again(
    tasks_board: board.TaskBoard, waiting: fakes.Queue, others: fakes.Others
) -> None:
    factory = sensible(tasks_board, waiting, others, tasks_per_hour=1)
    for at, gap in enumerate(GAPS):
        await factory.report_dissonance(fakes.event(f"e{at}", gap))
    for at in range(10):
        await factory.report_dissonance(fakes.event(f"more{at}", GAPS[2]))
    priorities = {task.trigger_query: task.priority for task in await factory.list([], 0)}
    assert priorities == {GAPS[0]: 3, GAPS[1]: 3, GAPS[2]: 4}
    roomy = sensible(tasks_board, waiting, others)
    await roomy.recover()
    handed_in = [entry[0] for entry in waiting.entries][-2:]
    found = [(await factory.get(task_id)).trigger_query for task_id in handed_in]
    assert found == [GAPS[2], GAPS[1]]


async def test_waiting_task_is_cancelled_when_it_was_never_handed_in(
    tasks_board: board.TaskBoard, waiting: fakes.Queue, others: fakes.Others
) -> None:
    factory = sensible(tasks_board, waiting, others, tasks_per_hour=1)
    await factory.report_dissonance(fakes.event("e1"))
    held, _ = await factory.report_dissonance(fakes.event("e2", "Where does Tarnock lie?"))
    assert (await factory.cancel(held.id)).status is S.CANCELLED
    assert waiting.cancelled == []
