from __future__ import annotations

import pytest

from services.factory import dissonance, tasks
from shared import errors
from tests.unit.factory import fakes

S = tasks.TaskStatus


@pytest.mark.parametrize("priority", [0, 6, -1])
def test_task_is_refused_when_its_priority_is_out_of_range(priority: int) -> None:
    with pytest.raises(errors.InvalidInputError, match="priority"):
        fakes.task(priority=priority)


def test_task_is_refused_when_its_question_is_blank_or_too_long() -> None:
    with pytest.raises(errors.InvalidInputError, match="trigger_query"):
        fakes.task(query="  ")
    with pytest.raises(errors.InvalidInputError, match="characters"):
        fakes.task(query="x" * (dissonance.LONGEST_QUERY + 1))


def test_event_is_refused_when_it_has_no_id() -> None:
    with pytest.raises(errors.InvalidInputError, match="event_id"):
        fakes.event(event_id="")


def test_status_follows_the_order_of_the_workflow_when_all_goes_well() -> None:
    task = fakes.task()
    for status in (S.DISTILLING, S.TRAINING, S.EVALUATING, S.TRAINING, S.EVALUATING, S.PUBLISHING):
        task = task.moved(status, 2000)
    assert task.completed("done", 3000).status is S.COMPLETED


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (S.PENDING, S.TRAINING),
        (S.TRAINING, S.DISTILLING),
        (S.PUBLISHING, S.CANCELLED),
        (S.COMPLETED, S.FAILED),
        (S.CANCELLED, S.DISTILLING),
        (S.FAILED, S.PENDING),
    ],
)
def test_move_is_refused_when_there_is_no_such_way(before: S, after: S) -> None:
    with pytest.raises(errors.PreconditionError, match=after.value):
        fakes.task(status=before).moved(after, 2000)


def test_ended_task_stays_as_it_is_when_a_late_report_comes() -> None:
    ended = fakes.task(status=S.CANCELLED)
    assert ended.failed("late", 9) == ended
    assert ended.completed("late", 9) == ended
    assert ended.progressed(0.5, "late", 9) == ended
    assert ended.published("card", 9) == ended
    assert ended.cancelled(9) == ended


def test_stage_time_is_counted_from_its_first_beginning_when_it_is_begun_again() -> None:
    task = fakes.task().timing("train", 1000).timing("train", 5000).timed("train", 7000)
    assert task.stage_times == (tasks.StageTime("train", 6.0),)
    assert task.timed("train", 9000) == task


def test_stage_times_add_up_when_a_stage_is_run_twice() -> None:
    task = fakes.task().timing("train", 1000).timed("train", 2000)
    task = task.timing("train", 5000).timed("train", 5500)
    assert task.stage_times == (tasks.StageTime("train", 1.5),)


def test_question_is_left_out_when_it_joins_in_another_spelling() -> None:
    task = fakes.task().joined([fakes.QUESTION.upper(), "Who founded Zorblax?"], 2000)
    assert task.other_queries == ("Who founded Zorblax?",)


def test_retry_is_refused_when_the_task_has_not_failed() -> None:
    with pytest.raises(errors.PreconditionError, match="only FAILED"):
        fakes.task(status=S.TRAINING).retried("t2", 2000)


def test_retry_keeps_what_was_to_be_learned_when_the_task_failed() -> None:
    failed = fakes.task(other_queries=("b?",), topic_key="k", priority=4).failed("why", 2000)
    again = failed.retried("t2", 3000)
    assert (again.queries, again.topic_key, again.priority) == (failed.queries, "k", 4)
    assert (again.status, again.error, again.retry_of) == (S.PENDING, "", "t1")
