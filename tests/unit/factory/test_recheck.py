from __future__ import annotations

import pytest

from services.factory import board, feedback, partners, published, recheck, tasks
from shared import errors, learning_settings
from tests.unit.factory import fakes

NEW, OLD = f"zorblax@{'1' * 64}", f"zorblax@{'2' * 64}"
S = tasks.TaskStatus


def row(right: int, asked: int = 10, name: str = "held_out") -> partners.GateRow:
    return partners.GateRow(name, right, asked, 0.5, right >= 0.5 * asked)


def found(*now: partners.GateRow) -> partners.Rechecked:
    return partners.Rechecked(now, (row(9), row(0, 0, "other_cards")))


GOOD, WORSE = found(row(9)), found(row(8))


@pytest.fixture
async def others(tasks_board: board.TaskBoard) -> fakes.Others:
    """A store in which the card of task `t2` follows that of `t1`."""
    fake = fakes.Others()
    fake.served, fake.before = partners.Published(NEW, "d" * 64), OLD
    fake.rechecks = {NEW: WORSE, OLD: GOOD}
    for number, card in ((1, OLD), (2, NEW)):
        task_id = f"t{number}"
        task = fakes.task(task_id, f"Question {number}?", status=S.COMPLETED, card=card)
        await tasks_board.add(task, "")
        triggers = (partners.Trigger(task.trigger_query, "blue salt"),)
        await tasks_board.keep_card(published.PublishedCard(card, task_id, "d" * 64, triggers, 0))
    return fake


def rechecker(tasks_board: board.TaskBoard, others: fakes.Others) -> recheck.Rechecker:
    # Every look at the fake clock is a second.
    settings = learning_settings.Recheck(every_hours=0.1 / 3600)
    return recheck.Rechecker(tasks_board, others.all, settings, patience_s=0.0)


def test_row_is_not_worse_when_nothing_is_required_of_it() -> None:
    told = [partners.GateRow("held_out_alone", right, 10, 0.0, True) for right in (9, 1)]
    assert recheck.worse_rows(partners.Rechecked((told[1],), (told[0],)), 0.05) == []


@pytest.mark.parametrize(
    ("now", "worse"),
    [
        (row(9), []),
        (row(17, 20), []),
        (row(16, 20), ["held_out 16/20 (9/10 before)"]),
        (row(0, 0), []),
        (row(3, 10, "other_cards"), ["other_cards 3/10 (0/0 before)"]),
        (row(5, 10, "other_cards"), []),
        (row(4, 10, "regression"), ["regression 4/10 (new)"]),
    ],
)
def test_row_is_worse_when_it_fell_by_more_than_the_tolerance(
    now: partners.GateRow, worse: list[str]
) -> None:
    assert recheck.worse_rows(found(now), 0.05) == worse


async def test_card_makes_room_for_the_one_before_when_it_has_become_worse(
    tasks_board: board.TaskBoard, others: fakes.Others
) -> None:
    assert await rechecker(tasks_board, others).run_due() == [NEW]
    assert others.calls == [f"recheck {NEW}", f"recheck {OLD}", f"withdraw {NEW}"]
    task = await tasks_board.get("t2")
    assert task.status is S.FAILED
    assert "held_out 8/10 (9/10 before); it makes room for zorblax@2222" in task.error
    assert task.retried("t3", 5).trigger_query == "Question 2?"


async def test_card_goes_on_serving_when_it_is_as_good_as_before(
    tasks_board: board.TaskBoard, others: fakes.Others
) -> None:
    others.rechecks[NEW] = GOOD
    assert await rechecker(tasks_board, others).run_due() == []
    assert others.calls == [f"recheck {NEW}"]
    assert (await tasks_board.get("t2")).status is S.COMPLETED


@pytest.mark.parametrize(
    ("before", "told"), [("", "it is the first version and stays"), (OLD, "has become worse, too")]
)
async def test_worse_card_stays_and_says_so_when_nothing_better_is_there(
    before: str, told: str, tasks_board: board.TaskBoard, others: fakes.Others
) -> None:
    others.before, others.rechecks[OLD] = before, WORSE
    assert await rechecker(tasks_board, others).run_due() == []
    task = await tasks_board.get("t2")
    assert task.status is S.COMPLETED and told in task.detail
    assert not any(call.startswith("withdraw") for call in others.calls)


async def test_card_is_proved_once_when_it_is_not_due_again(
    tasks_board: board.TaskBoard, others: fakes.Others
) -> None:
    others.rechecks[NEW] = GOOD
    checks = recheck.Rechecker(tasks_board, others.all, learning_settings.Recheck(every_hours=0.01))
    for _ in range(2):
        await checks.run_due()
    assert others.calls == []
    for _ in range(40):
        tasks_board.now_ms()
    for _ in range(2):
        await checks.run_due()
    assert others.calls == [f"recheck {NEW}"]


async def test_card_is_proved_before_its_time_when_users_call_its_answers_wrong(
    tasks_board: board.TaskBoard, others: fakes.Others
) -> None:
    others.rechecks[NEW] = GOOD
    settings = learning_settings.Recheck(every_hours=0.4, wrongs=2)
    checks = recheck.Rechecker(tasks_board, others.all, settings)

    async def say(key: str, question: str, card: str = NEW, is_right: bool = False) -> None:
        given = feedback.Feedback(key, question, card=card, is_right=is_right)
        await tasks_board.record_feedback(given, None, "counted")

    async def pass_a_minute() -> None:
        for _ in range(60):
            tasks_board.now_ms()

    await pass_a_minute()
    # Neither of the same question again, nor of right answers, nor of another card.
    await say("k1", "What is it?")
    await say("k2", "what is it")
    await say("k3", "Who is it?", is_right=True)
    await say("k4", "Who was it?", card=OLD)
    await checks.run_due()
    assert others.calls == []
    await say("k5", "Where is it?")
    for _ in range(2):
        await checks.run_due()
    assert others.calls == [f"recheck {NEW}"]
    # Not at once again, whatever users say, and then once.
    await say("k6", "What is it?")
    await say("k7", "Where is it?")
    await checks.run_due()
    assert others.calls == [f"recheck {NEW}"]
    await pass_a_minute()
    for _ in range(2):
        await checks.run_due()
    assert others.calls == [f"recheck {NEW}"] * 2


async def test_card_is_not_proved_for_wrongs_when_the_setting_says_so(
    tasks_board: board.TaskBoard, others: fakes.Others
) -> None:
    for number in range(9):
        given = feedback.Feedback(f"k{number}", f"Question {number}?", card=NEW)
        await tasks_board.record_feedback(given, None, "counted")
    settings = learning_settings.Recheck(every_hours=24, wrongs=0)
    await recheck.Rechecker(tasks_board, others.all, settings).run_due()
    assert others.calls == []


async def test_card_stays_due_when_no_trainer_is_there(
    tasks_board: board.TaskBoard, others: fakes.Others, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*arguments: object) -> partners.Rechecked:
        raise errors.UnavailableError("connection lost")

    with monkeypatch.context() as patched:
        patched.setattr(others, "recheck", away)
        assert await rechecker(tasks_board, others).run_due() == []
    assert await rechecker(tasks_board, others).run_due() == [NEW]


async def test_joined_tasks_fail_with_the_other_when_its_card_is_rolled_back(
    tasks_board: board.TaskBoard, others: fakes.Others
) -> None:
    follower = fakes.task("t3", "Question 3?", status=S.COMPLETED, joined_into="t2", card=NEW)
    await tasks_board.add(follower, "")
    await rechecker(tasks_board, others).run_due()
    assert (await tasks_board.get("t3")).status is S.FAILED


async def test_nothing_is_rolled_back_when_a_newer_card_was_published_while_it_was_proved(
    tasks_board: board.TaskBoard, others: fakes.Others, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def proved(recheck_id: str, card: partners.Published, *more: object) -> object:
        others.served = partners.Published("zorblax@newer", "d" * 64)
        return others.rechecks[card.card]

    monkeypatch.setattr(others, "recheck", proved)
    assert await rechecker(tasks_board, others).run_due() == []
    assert not any(call.startswith("withdraw") for call in others.calls)
    assert (await tasks_board.get("t2")).status is S.COMPLETED
