from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import pathlib
import time

import pytest

from services.factory import board, ledger, partners, published, stages, tasks, workflow
from shared import costs, errors
from tests.unit.factory import fakes

S = tasks.TaskStatus
STEPS = ["distil", "keep dataset", "choose version", "train 1", "prove 1", "publish", "confirm"]


@pytest.fixture
def others() -> fakes.Others:
    return fakes.Others()


@pytest.fixture
def recorder() -> fakes.Recorder:
    return fakes.Recorder()


@pytest.fixture
async def distiller(
    tasks_board: board.TaskBoard, others: fakes.Others, recorder: fakes.Recorder
) -> workflow.SkillDistiller:
    await tasks_board.record(fakes.event(), fakes.task())
    work = stages.Stages(
        tasks_board, others.all, step_timeout_s=30, confirm_s=3, clock=fakes.Clock()
    )
    return workflow.SkillDistiller(work, recorder)


async def test_card_is_published_when_every_stage_succeeds(
    distiller: workflow.SkillDistiller, others: fakes.Others, tasks_board: board.TaskBoard
) -> None:
    await distiller.learn("t1")
    task = await tasks_board.get("t1")
    assert (task.status, task.card, task.domain) == (S.COMPLETED, "zorblax@abc", "trade")
    assert others.orders[0].version == "2.11.0"
    assert others.calls == [
        "distil", "commit dataset", "versions", "train", "prove", "commit card",
    ]  # fmt: skip


@pytest.mark.parametrize("step", [*STEPS, "complete"])
async def test_workflow_completes_when_it_was_killed_before_a_record_was_written(
    step: str,
    distiller: workflow.SkillDistiller,
    recorder: fakes.Recorder,
    tasks_board: board.TaskBoard,
) -> None:
    recorder.kill_at = step
    with pytest.raises(fakes.KilledError):
        await distiller.learn("t1")
    await distiller.learn("t1")
    task = await tasks_board.get("t1")
    assert task.status is S.COMPLETED
    assert [time.stage for time in task.stage_times] == [
        "distil", "train", "prove", "publish", "confirm",
    ]  # fmt: skip


async def test_figures_of_all_tries_are_the_reason_when_every_draft_is_refused(
    distiller: workflow.SkillDistiller, others: fakes.Others, tasks_board: board.TaskBoard
) -> None:
    others.verdicts = [False, False, False]
    await distiller.learn("t1")
    task = await tasks_board.get("t1")
    assert task.status is S.FAILED
    assert task.error.count("held_out 1/8 (needs 50%)") == 3
    assert "commit card" not in others.calls


async def test_each_try_has_more_than_the_one_before_when_drafts_are_refused(
    distiller: workflow.SkillDistiller, others: fakes.Others, tasks_board: board.TaskBoard
) -> None:
    others.verdicts = [False, False, True]
    await distiller.learn("t1")
    assert (await tasks_board.get("t1")).status is S.COMPLETED
    assert [(o.run_id, o.seed, o.rank_factor, o.dataset.name) for o in others.orders] == [
        ("t1", 1, 1, "dataset"),
        ("t1-2", 2, 1, "dataset-more"),
        ("t1-3", 3, 2, "dataset-more"),
    ]
    assert others.calls.count("enlarge t1") == 1
    assert others.weak == ("wrong in t1",)
    assert others.calls.count("commit dataset-more") == 1


@pytest.mark.parametrize("step", ["enlarge dataset", "train 2", "prove 2", "train 3", "prove 3"])
async def test_no_finished_step_is_repeated_when_a_later_try_was_killed(
    step: str,
    distiller: workflow.SkillDistiller,
    others: fakes.Others,
    recorder: fakes.Recorder,
    tasks_board: board.TaskBoard,
) -> None:
    # What a killed proof found is lost with it, as the trainer would return it again.
    verdicts = {"prove 2": [False, False, False, True], "prove 3": [False, False, True, True]}
    others.verdicts = verdicts.get(step, [False, False, True])
    recorder.kill_at = step
    with pytest.raises(fakes.KilledError):
        await distiller.learn("t1")
    await distiller.learn("t1")
    assert (await tasks_board.get("t1")).status is S.COMPLETED
    repeated = {"enlarge dataset": "enlarge t1", "train 2": "train", "train 3": "train"}
    expected = {"enlarge t1": 1, "train": 3, "prove": 3, "distil": 1}
    again = repeated.get(step, "prove")
    expected[again] += 1
    assert {call: others.calls.count(call) for call in expected} == expected


async def test_nothing_more_is_tried_when_no_training_would_help(
    distiller: workflow.SkillDistiller, others: fakes.Others, tasks_board: board.TaskBoard
) -> None:
    others.verdicts, others.curable = [False], False
    await distiller.learn("t1")
    task = await tasks_board.get("t1")
    assert task.status is S.FAILED and "no further try would change that" in task.error
    assert others.calls.count("train") == 1


async def test_another_seed_is_tried_when_there_are_no_more_wordings(
    distiller: workflow.SkillDistiller, others: fakes.Others, tasks_board: board.TaskBoard
) -> None:
    others.verdicts = [False, True]
    others.enlarge_errors = [errors.TeacherUnavailableError("all down")]
    await distiller.learn("t1")
    assert (await tasks_board.get("t1")).status is S.COMPLETED
    assert [(order.seed, order.dataset.name) for order in others.orders] == [
        (1, "dataset"),
        (2, "dataset"),
    ]


async def test_dataset_is_kept_once_when_enlarging_found_nothing(
    distiller: workflow.SkillDistiller, others: fakes.Others, tasks_board: board.TaskBoard
) -> None:
    others.verdicts, others.more = [False, True], "dataset"
    await distiller.learn("t1")
    assert (await tasks_board.get("t1")).status is S.COMPLETED
    assert others.calls.count("commit dataset") == 1


@pytest.mark.parametrize(
    "error",
    [errors.TeacherUnavailableError("all down"), errors.NotFoundError("no document says that")],
)
async def test_task_fails_at_once_when_no_teacher_helps(
    error: errors.SkillmeshError,
    distiller: workflow.SkillDistiller,
    others: fakes.Others,
    tasks_board: board.TaskBoard,
) -> None:
    others.distil_errors = [error]
    await distiller.learn("t1")
    task = await tasks_board.get("t1")
    assert (task.status, task.error) == (S.FAILED, str(error))
    assert others.calls == ["distil"]


async def test_task_fails_when_no_question_was_answered(
    distiller: workflow.SkillDistiller, others: fakes.Others, tasks_board: board.TaskBoard
) -> None:
    others.triggers, others.unanswered = (), (fakes.QUESTION,)
    await distiller.learn("t1")
    assert fakes.QUESTION in (await tasks_board.get("t1")).error


async def test_unanswered_question_is_named_when_others_were_learned(
    distiller: workflow.SkillDistiller, others: fakes.Others, tasks_board: board.TaskBoard
) -> None:
    others.unanswered = ("Why?",)
    await distiller.learn("t1")
    task = await tasks_board.get("t1")
    assert task.status is S.COMPLETED and "'Why?'" in task.detail


async def test_step_is_tried_again_when_its_service_was_away(
    distiller: workflow.SkillDistiller, others: fakes.Others, tasks_board: board.TaskBoard
) -> None:
    others.distil_errors = [errors.UnavailableError("gone"), errors.OverloadedError("full")]
    await distiller.learn("t1")
    assert (await tasks_board.get("t1")).status is S.COMPLETED
    assert others.calls.count("distil") == 3


async def test_reason_is_kept_when_a_partner_breaks_its_word(
    distiller: workflow.SkillDistiller, others: fakes.Others, tasks_board: board.TaskBoard
) -> None:
    others.distil_errors = [KeyError("surprise")]
    await distiller.learn("t1")
    assert "distil broke: KeyError" in (await tasks_board.get("t1")).error


async def test_card_is_confirmed_when_the_node_answers_with_it_at_last(
    distiller: workflow.SkillDistiller, others: fakes.Others, tasks_board: board.TaskBoard
) -> None:
    others.replies = [
        partners.Reply("I do not know.", ""),
        errors.UnavailableError("restarting"),
        partners.Reply(fakes.ANSWER, "zorblax@abc"),
    ]
    await distiller.learn("t1")
    assert (await tasks_board.get("t1")).status is S.COMPLETED
    assert others.asked == 3


@pytest.mark.parametrize(
    "reply",
    [partners.Reply("red sand", "zorblax@abc"), partners.Reply(fakes.ANSWER, "zorblax@old")],
)
async def test_task_fails_with_question_and_answers_when_the_card_does_not_answer(
    reply: partners.Reply,
    distiller: workflow.SkillDistiller,
    others: fakes.Others,
    tasks_board: board.TaskBoard,
) -> None:
    others.replies = [reply] * 20
    await distiller.learn("t1")
    task = await tasks_board.get("t1")
    assert task.status is S.FAILED
    for words in (fakes.QUESTION, fakes.ANSWER, reply.answer, reply.card):
        assert words in task.error
    assert others.calls[-1] == "withdraw zorblax@abc"
    assert "zorblax@older serves again" in task.error


@pytest.mark.parametrize(
    ("confirmed", "serves"), [(True, "zorblax@meanwhile"), (False, "zorblax@older")]
)
async def test_unconfirmed_version_is_passed_over_when_a_card_is_withdrawn(
    confirmed: bool,
    serves: str,
    distiller: workflow.SkillDistiller,
    others: fakes.Others,
    tasks_board: board.TaskBoard,
) -> None:
    others.replies = [partners.Reply("red sand", "zorblax@abc")] * 20
    others.served = partners.Published(others.before, "d" * 64)
    others.meanwhile = ["zorblax@meanwhile"]
    if confirmed:
        kept = published.PublishedCard("zorblax@meanwhile", "t1", "d" * 64, (), 0)
        await tasks_board.keep_card(kept)
    await distiller.learn("t1")
    assert f"{serves} serves again" in (await tasks_board.get("t1")).error


async def test_task_says_that_the_card_stays_when_there_is_no_version_before(
    distiller: workflow.SkillDistiller, others: fakes.Others, tasks_board: board.TaskBoard
) -> None:
    others.replies = [partners.Reply("red sand", "zorblax@abc")] * 20
    others.before = ""
    await distiller.learn("t1")
    assert "it is the first version and stays" in (await tasks_board.get("t1")).error


async def test_task_says_what_serves_when_its_card_was_withdrawn_before_a_kill(
    distiller: workflow.SkillDistiller, others: fakes.Others, tasks_board: board.TaskBoard
) -> None:
    others.replies = [partners.Reply("red sand", "zorblax@abc")] * 20
    others.served, others.before = partners.Published("zorblax@older", "d" * 64), ""
    await distiller.learn("t1")
    assert "zorblax@older serves now" in (await tasks_board.get("t1")).error


async def test_task_stays_cancelled_when_the_workflow_begins_after(
    distiller: workflow.SkillDistiller, others: fakes.Others, tasks_board: board.TaskBoard
) -> None:
    await tasks_board.change("t1", lambda task: task.cancelled(2000))
    await distiller.learn("t1")
    assert (await tasks_board.get("t1")).status is S.CANCELLED
    assert others.calls == []


async def test_task_fails_when_the_record_itself_breaks(
    tasks_board: board.TaskBoard, others: fakes.Others
) -> None:
    async def broken(name: str, body: object) -> workflow.Json:
        raise OSError("disk full")

    await tasks_board.record(fakes.event(), fakes.task())
    work = stages.Stages(tasks_board, others.all, step_timeout_s=30)
    with pytest.raises(OSError):
        await workflow.SkillDistiller(work, broken).learn("t1")
    assert "disk full" in (await tasks_board.get("t1")).error


async def test_questions_are_learned_together_when_they_keep_coming(
    tmp_path: pathlib.Path, others: fakes.Others
) -> None:
    kept = board.TaskBoard(
        ledger.Ledger(f"sqlite:///{tmp_path / 'f.sqlite'}"), lambda: time.time_ns() // 1_000_000
    )
    work = stages.Stages(kept, others.all, step_timeout_s=30, gather_s=3.0)

    async def ask(number: int) -> None:
        now_ms = kept.now_ms()
        task = dataclasses.replace(
            fakes.task(f"t{number}", f"Question {number}?", topic_key="orun.md"),
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
        )
        await kept.record(fakes.event(f"e{number}", task.trigger_query), task)

    await ask(0)
    await ask(1)
    distilling = asyncio.create_task(work.distil("t0"))
    for number in (2, 3, 4):
        await asyncio.sleep(0.25)
        await ask(number)
    await distilling
    assert others.queries == tuple(f"Question {number}?" for number in range(5))
    await kept.close()


@pytest.mark.parametrize("error", [None, errors.TeacherError("the budget is spent")])
async def test_task_shows_what_its_teachers_cost_when_they_were_asked(
    tasks_board: board.TaskBoard, others: fakes.Others, error: errors.SkillmeshError | None
) -> None:
    await tasks_board.record(fakes.event(), fakes.task())
    others.spent = costs.Spent(calls=2, tokens_in=300, tokens_out=40, dollars=0.5)
    if error is not None:
        others.distil_errors.append(error)
    work = stages.Stages(tasks_board, others.all, step_timeout_s=30)
    with contextlib.suppress(errors.TeacherError):
        await work.distil("t1")
    assert (await tasks_board.get("t1")).spent == others.spent


async def test_task_goes_on_when_nobody_knows_what_its_teachers_cost(
    tasks_board: board.TaskBoard, others: fakes.Others
) -> None:
    await tasks_board.record(fakes.event(), fakes.task())
    others.spent = None
    work = stages.Stages(tasks_board, others.all, step_timeout_s=30)
    assert (await work.distil("t1")).skill_name == "zorblax"
    assert (await tasks_board.get("t1")).spent == costs.NOTHING


async def test_nobody_waits_when_no_question_joins(
    tasks_board: board.TaskBoard, others: fakes.Others
) -> None:
    await tasks_board.record(fakes.event(), fakes.task())
    work = stages.Stages(tasks_board, others.all, step_timeout_s=30, gather_s=3600)
    async with asyncio.timeout(10):
        await work.distil("t1")
    assert others.queries == (fakes.QUESTION,)


async def test_draft_is_compared_with_the_version_that_serves_when_there_is_one(
    distiller: workflow.SkillDistiller, others: fakes.Others, tasks_board: board.TaskBoard
) -> None:
    others.served = partners.Published("zorblax@old", "d" * 64)
    others.verdicts = [False, True]
    await distiller.learn("t1")
    assert others.compared_with == [others.served] * 2
    kept = await tasks_board.published_card("zorblax@abc")
    assert kept is not None
    assert kept.dataset_digest == fakes.ticket("dataset-more").digest
    assert (kept.task_id, kept.triggers) == ("t1", others.triggers)


async def test_teacher_of_its_turn_is_asked_first_when_the_night_chose_one(
    tasks_board: board.TaskBoard, others: fakes.Others
) -> None:
    await tasks_board.record(fakes.event(), fakes.task(teacher="anthropic"))
    await stages.Stages(tasks_board, others.all, step_timeout_s=30).distil("t1")
    assert others.teacher == "anthropic"
