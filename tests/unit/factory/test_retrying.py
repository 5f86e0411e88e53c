"""What a task that tries another one again takes over from it."""

from __future__ import annotations

import pytest

from services.factory import board, partners, stages, tasks, workflow
from shared import errors
from tests.unit.factory import fakes


@pytest.fixture
def others() -> fakes.Others:
    return fakes.Others()


async def _learned(
    tasks_board: board.TaskBoard, others: fakes.Others, task: tasks.TrainingTask
) -> tasks.TrainingTask:
    await tasks_board.add(task, "")
    work = stages.Stages(
        tasks_board, others.all, step_timeout_s=30, confirm_s=3, clock=fakes.Clock()
    )
    await workflow.SkillDistiller(work, fakes.Recorder()).learn(task.id)
    return await tasks_board.get(task.id)


async def test_answers_of_all_tries_before_serve_when_a_task_is_tried_again(
    tasks_board: board.TaskBoard, others: fakes.Others
) -> None:
    await tasks_board.add(fakes.task("t1"), "")
    first = await tasks_board.change("t1", lambda task: task.cancelled(2000))
    others.distil_errors = [errors.TeacherUnavailableError("all down")]
    second = await _learned(tasks_board, others, first.retried("t2", 3000))
    assert (second.status, others.retry_of) == (tasks.TaskStatus.FAILED, ("t1",))
    await _learned(tasks_board, others, second.retried("t3", 4000))
    assert others.retry_of == ("t2", "t1")


async def test_teachers_are_asked_anew_when_the_gate_refused_what_they_said(
    tasks_board: board.TaskBoard, others: fakes.Others
) -> None:
    others.verdicts = [False] * 3
    refused = await _learned(tasks_board, others, fakes.task("t1"))
    await _learned(tasks_board, others, refused.retried("t2", 3000))
    assert others.retry_of == ()


async def test_answers_serve_again_when_the_card_was_not_confirmed(
    tasks_board: board.TaskBoard, others: fakes.Others
) -> None:
    others.replies = [partners.Reply("red sand", "zorblax@abc")] * 20
    withdrawn = await _learned(tasks_board, others, fakes.task("t1"))
    await _learned(tasks_board, others, withdrawn.retried("t2", 3000))
    assert others.retry_of == ("t1",)
