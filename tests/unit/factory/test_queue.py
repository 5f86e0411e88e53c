from __future__ import annotations

import pytest

from services.factory import board, queue, tasks
from shared import errors
from tests.unit.factory import fakes

S = tasks.TaskStatus


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
