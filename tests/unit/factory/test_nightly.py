from __future__ import annotations

import asyncio
import contextlib
import datetime
import pathlib
from collections.abc import AsyncIterator, Sequence

import pydantic
import pytest

from services.factory import (
    board,
    clusters,
    ledger,
    meanings,
    nightly,
    partners,
    queue,
    stages,
    tasks,
    workflow,
)
from shared import errors, learning_settings
from shared import settings as config
from tests import fake_router_peers
from tests.unit.factory import fakes

S = tasks.TaskStatus
HOUR_MS = 3_600_000
NIGHTLY = learning_settings.Nightly(priority_below=4, same_skill=0.5)
ABOUT_ZORBLAX = ("What does Zorblax trade?", "What does Zorblax eat?", "What does Zorblax drink?")
ABOUT_MILL = "Who runs the old Tarnock mill?"


def at_ms(day: int, hour: int, minute: int = 0) -> int:
    moment = datetime.datetime(2026, 3, day, hour, minute, tzinfo=datetime.UTC)
    return round(moment.timestamp() * 1000)


class Clock:
    def __init__(self) -> None:
        self.now_ms = at_ms(1, 12)

    def __call__(self) -> int:
        return self.now_ms


async def embed(texts: Sequence[str]) -> meanings.Vectors:
    return fake_router_peers.HashingEmbedder().embed(texts)


class Factory:
    """A factory whose tasks wait for the night, on one database."""

    def __init__(
        self,
        folder: pathlib.Path,
        clock: Clock,
        settings: learning_settings.Nightly = NIGHTLY,
        **rotation: tuple[str, ...],
    ) -> None:
        url = f"sqlite:///{folder / 'f.sqlite'}"
        self.clock, self.handed_in, others = clock, fakes.Queue(), fakes.Others()
        self.board = board.TaskBoard(ledger.Ledger(url), clock)
        judgement = learning_settings.Judgement(enabled=False)
        limits = config.Factory(nightly=settings, judgement=judgement)
        self.queue = queue.SkillFactory(self.board, self.handed_in, others, 2.0, limits)
        turns = clusters.Rotation(**rotation)
        self.shift = nightly.NightShift(self.board, self.queue.admit, settings, turns, embed)
        self._asked = 0

    async def ask(self, query: str) -> str:
        self._asked += 1
        self.clock.now_ms += 1
        event = fakes.event(f"{self.clock.now_ms}-{self._asked}", query)
        task, _ = await self.queue.report_dissonance(event)
        return task.id

    @property
    def started(self) -> list[str]:
        return [entry[0] for entry in self.handed_in.entries]


@pytest.fixture
async def factory(tmp_path: pathlib.Path) -> AsyncIterator[Factory]:
    opened = Factory(tmp_path, Clock())
    yield opened
    await opened.board.close()


def test_latest_night_is_the_one_that_begins_now_when_it_is_due() -> None:
    schedule = nightly.Schedule(NIGHTLY)
    assert schedule.latest_ms(at_ms(2, 2)) == at_ms(2, 2)
    assert schedule.latest_ms(at_ms(2, 2) - 1) == at_ms(1, 2)
    assert schedule.next_ms(at_ms(2, 2)) == at_ms(3, 2)


def test_night_begins_at_local_time_when_a_time_zone_is_set() -> None:
    schedule = nightly.Schedule(learning_settings.Nightly(timezone="Asia/Tokyo"))
    assert schedule.next_ms(at_ms(1, 12)) == at_ms(1, 17)
    assert schedule.sleep(at_ms(1, 12)).reason.endswith("2026-03-02 02:00 Asia/Tokyo")


@pytest.mark.parametrize(
    "wrong", [{"cron": "0 25 * * *"}, {"cron": "0 2 * * * 5"}, {"timezone": "Mars"}]
)
def test_setting_is_refused_when_it_names_no_time(wrong: dict[str, str]) -> None:
    with pytest.raises(pydantic.ValidationError, match="such as"):
        learning_settings.Nightly.model_validate(wrong)


async def test_task_waits_and_says_until_when_when_its_priority_is_low(factory: Factory) -> None:
    low = await factory.ask(ABOUT_MILL)
    urgent = await factory.queue.teach("Salt", "", 5, "k")
    assert factory.started == [urgent.id]
    held = await factory.queue.get(low)
    assert (held.status, held.admitted_at_ms) == (S.PENDING, 0)
    assert held.detail == "waits for the night: starts after 2026-03-02 02:00 UTC"
    assert await factory.shift.run_due() is None


async def test_nothing_waits_for_the_night_when_there_are_none(tmp_path: pathlib.Path) -> None:
    off = NIGHTLY.model_copy(update={"enabled": False})
    factory = Factory(tmp_path, Clock(), settings=off)
    task_id = await factory.ask(ABOUT_MILL)
    factory.clock.now_ms = at_ms(2, 3)
    assert factory.started == [task_id]
    assert await factory.shift.run_due() is None
    await factory.board.close()


async def test_night_goes_on_when_more_tasks_wait_for_the_next_than_are_looked_at_together(
    factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "_MOST_CONSIDERED", 2)
    first = [await factory.ask(word) for word in ("Zorblax?", "Tarnock?", "Quern?")]
    night = await factory.shift.run_now("k")
    for word in ("Lumo?", "Harp?", "Salt?"):
        await factory.ask(word)
    while len(factory.started) < 3:
        before = len(factory.started)
        await factory.queue.admit()
        assert len(factory.started) > before
    assert night.tasks == 3 and set(factory.started) == set(first)


async def test_task_starts_by_day_when_many_ask_for_it(factory: Factory) -> None:
    task_id = await factory.ask(ABOUT_MILL)
    for _ in range(9):
        await factory.ask(ABOUT_MILL)
    await factory.queue.admit()
    assert factory.started == [task_id]


async def test_gaps_are_one_task_when_the_night_has_come(factory: Factory) -> None:
    alike = [await factory.ask(query) for query in ABOUT_ZORBLAX]
    other = await factory.ask(ABOUT_MILL)
    watching = asyncio.create_task(_watched(factory, alike[2]))
    factory.clock.now_ms = at_ms(2, 2)
    night = await factory.shift.run_due()

    assert night is not None and [set(s.tasks) for s in night.skills] == [set(alike), {other}]
    leader = await factory.queue.get(alike[0])
    assert set(leader.queries) == set(ABOUT_ZORBLAX) and leader.demand == 3
    assert factory.handed_in.entries == [(alike[0], 1, 0.0), (other, 1, 0.0)]
    follower = await factory.queue.get(alike[2])
    assert (follower.status, follower.joined_into) == (S.PENDING, alike[0])
    await _end(factory, alike[0], "zorblax@abc")
    seen = await watching
    assert f"together with task {alike[0]}" in seen[-2].detail
    assert (seen[-1].status, seen[-1].card) == (S.COMPLETED, "zorblax@abc")


async def test_late_question_finds_the_skill_when_its_own_task_was_joined(
    factory: Factory,
) -> None:
    first, second = [await factory.ask(query) for query in ABOUT_ZORBLAX[:2]]
    await factory.shift.run_now("k")
    assert await factory.ask(ABOUT_ZORBLAX[1]) == first != second


async def test_alike_question_joins_the_skill_when_the_task_it_is_like_was_joined(
    factory: Factory,
) -> None:
    first, second = [await factory.ask(query) for query in ABOUT_ZORBLAX[:2]]
    await factory.shift.run_now("k")
    fresh = fakes.task("fresh", "Which foods does Zorblax like?")
    event = fakes.event("e", fresh.trigger_query)
    task, created = await factory.board.record(event, fresh, alike=second)
    assert (task.id, created) == (first, False)
    assert fresh.trigger_query in task.queries


async def test_joined_task_fails_when_no_answer_was_found_to_its_question(
    factory: Factory,
) -> None:
    first, second, third = [await factory.ask(query) for query in ABOUT_ZORBLAX]
    await factory.shift.run_now("k")
    others = fakes.Others()
    others.triggers = tuple(partners.Trigger(ABOUT_ZORBLAX[at], fakes.ANSWER) for at in (0, 2))
    others.unanswered = (ABOUT_ZORBLAX[1],)
    work = stages.Stages(factory.board, others.all, step_timeout_s=30)
    await workflow.SkillDistiller(work, fakes.Recorder()).learn(first)
    tasks_now = [await factory.queue.get(task_id) for task_id in (first, second, third)]
    assert [task.status for task in tasks_now] == [S.COMPLETED, S.FAILED, S.COMPLETED]
    told = f"learned together with task {first}, but no answer was found"
    assert (tasks_now[1].error, tasks_now[1].card) == (told, "")
    assert (await factory.queue.retry(second, "r")).queries == (ABOUT_ZORBLAX[1],)


async def test_joined_tasks_fail_with_the_reason_when_the_skill_was_not_learned(
    factory: Factory,
) -> None:
    first, second = [await factory.ask(query) for query in ABOUT_ZORBLAX[:2]]
    await factory.shift.run_now("k")
    await factory.board.change(first, lambda task: task.failed("no teacher", 5))
    follower = await factory.queue.get(second)
    assert follower.status is S.FAILED
    assert follower.error == f"learned together with task {first}: no teacher"
    again = await factory.queue.retry(second, "r")
    assert (again.joined_into, again.night, again.queries) == ("", "", (ABOUT_ZORBLAX[1],))


async def test_joined_task_waits_again_when_the_other_was_cancelled(factory: Factory) -> None:
    first, second = [await factory.ask(query) for query in ABOUT_ZORBLAX[:2]]
    await factory.shift.run_now("k")
    await factory.queue.cancel(first)
    await factory.queue.admit()
    task = await factory.queue.get(second)
    assert (task.status, task.joined_into) == (S.PENDING, "")
    assert "waits for the night" in task.detail
    assert await factory.ask(ABOUT_ZORBLAX[1]) == second
    night = await factory.shift.run_now("k2")
    assert [skill.tasks for skill in night.skills] == [(second,)]


async def test_cancelled_task_stays_so_when_the_other_ends(factory: Factory) -> None:
    first, second = [await factory.ask(query) for query in ABOUT_ZORBLAX[:2]]
    await factory.shift.run_now("k")
    await factory.queue.cancel(second)
    await _end(factory, first, "zorblax@abc")
    assert (await factory.queue.get(second)).status is S.CANCELLED


async def test_night_runs_once_when_it_is_asked_for_twice(factory: Factory) -> None:
    await factory.ask(ABOUT_MILL)
    first = await factory.shift.run_now("k")
    await factory.ask(ABOUT_ZORBLAX[0])
    assert await factory.shift.run_now("k") == first
    assert len(factory.started) == 1
    with pytest.raises(errors.InvalidInputError, match="idempotency_key"):
        await factory.shift.run_now("")


async def test_missed_nights_are_made_up_for_once_when_the_factory_starts(
    tmp_path: pathlib.Path,
) -> None:
    first = Factory(tmp_path, Clock())
    before = await first.ask(ABOUT_MILL)
    await first.board.close()
    first.clock.now_ms = at_ms(5, 9)
    restarted = Factory(tmp_path, first.clock)
    # Asked after the night that is made up for: waits for its own.
    after = await restarted.ask(ABOUT_ZORBLAX[0])
    night = await restarted.shift.run_due()
    again = await restarted.shift.run_due()
    assert night is not None and night == again and night.due_ms == at_ms(5, 2)
    assert restarted.started == [before]
    assert (await restarted.queue.get(after)).night == ""
    await restarted.board.close()


async def test_night_starts_when_the_factory_was_killed_right_after_it_was_gathered(
    tmp_path: pathlib.Path,
) -> None:
    async def killed() -> None:
        raise fakes.KilledError

    first = Factory(tmp_path, Clock())
    ids = [await first.ask(query) for query in (*ABOUT_ZORBLAX, ABOUT_MILL)]
    shift = nightly.NightShift(first.board, killed, NIGHTLY, clusters.Rotation(), embed)
    with pytest.raises(fakes.KilledError):
        await shift.run_now("k")
    await first.board.close()
    second = Factory(tmp_path, first.clock)
    await second.queue.recover()
    assert second.started == [ids[0], ids[3]]
    night = await second.shift.run_now("k")
    assert [len(skill.tasks) for skill in night.skills] == [3, 1]
    assert second.started == [ids[0], ids[3]]
    await second.board.close()


async def test_night_is_gathered_when_its_time_comes_while_the_factory_runs(
    factory: Factory,
) -> None:
    task_id = await factory.ask(ABOUT_MILL)
    running = asyncio.create_task(factory.shift.run_for_ever(every_s=0.01))
    await asyncio.sleep(0)
    assert factory.started == []
    factory.clock.now_ms = at_ms(2, 2)
    async with asyncio.timeout(30):
        while factory.started != [task_id]:
            await asyncio.sleep(0.01)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_skills_start_in_the_order_of_the_night_when_the_factory_restarts(
    tmp_path: pathlib.Path,
) -> None:
    first = Factory(tmp_path, Clock(), teachers=("p", "q"))
    words = ("mill Tarnock", "salt Zorblax", "fish Quern", "harp Lumo")
    for word in words:
        await first.ask(f"{word}?")
    night = await first.shift.run_now("k")
    planned = [skill.tasks[0] for skill in night.skills]
    assert [skill.teacher for skill in night.skills] == ["p", "p", "q", "q"]
    assert first.started == planned
    await first.board.close()
    second = Factory(tmp_path, first.clock)
    await second.queue.recover()
    assert second.started == planned
    assert [(await second.queue.get(one)).teacher for one in planned] == ["p", "p", "q", "q"]
    await second.board.close()


@pytest.mark.parametrize(
    ("rotate", "teachers"), [(True, ("", "anthropic", "local:m")), (False, ("",))]
)
def test_configured_teachers_and_base_take_turns_unless_that_is_switched_off(
    rotate: bool, teachers: tuple[str, ...]
) -> None:
    fallbacks = (
        config.Teacher(provider_type="anthropic"),
        config.Teacher(provider_type="local", model="m", endpoint="http://127.0.0.1:1/v1"),
    )
    settings = config.Settings(
        evolution=config.Evolution(fallbacks=fallbacks),
        factory=config.Factory(nightly=learning_settings.Nightly(rotate_teachers=rotate)),
        model=config.Model(base="some/model"),
    )
    assert nightly.rotation(settings) == clusters.Rotation(teachers, ("some/model",))


async def _watched(factory: Factory, task_id: str) -> list[tasks.TrainingTask]:
    return [task async for task in factory.queue.watch(task_id)]


async def _end(factory: Factory, task_id: str, card: str) -> None:
    for status in (S.DISTILLING, S.TRAINING, S.EVALUATING, S.PUBLISHING):
        await factory.board.change(task_id, lambda task, to=status: task.moved(to, 5))  # type: ignore[misc]
    await factory.board.change(task_id, lambda task: task.published(card, 5).completed("", 5))
