"""Tasks that learn a code base: opened, worked on, confirmed, and learned again at night."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import AsyncIterator

import pytest

from services.factory import (
    board,
    clusters,
    ledger,
    nightly,
    partners,
    queue,
    relearning,
    stages,
    tasks,
    workflow,
)
from shared import errors, learning_settings
from shared import settings as config
from tests.unit.factory import fakes
from tests.unit.factory.test_nightly import HOUR_MS, Clock, at_ms, embed

S = tasks.TaskStatus
NAME, CARD = "tidal", "specialist-tidal"
OTHER_COMMIT = "d" * 40


class Factory:
    """A factory on one database; what is handed in is worked on by `work`."""

    def __init__(self, folder: pathlib.Path, others: fakes.Others, clock: Clock) -> None:
        self.others, self.handed_in, self.clock = others, fakes.Queue(), clock
        self.board = board.TaskBoard(ledger.Ledger(f"sqlite:///{folder / 'f.sqlite'}"), clock)
        settings = learning_settings.Nightly(priority_below=3)
        limits = config.Factory(nightly=settings)
        self.queue = queue.SkillFactory(self.board, self.handed_in, others, 2.0, limits)
        self.shift = nightly.NightShift(
            self.board,
            self.queue.admit,
            settings,
            clusters.Rotation(),
            embed,
            relearning.Relearning(self.board, others, patience_s=0.0).run,
        )
        self.recorder = fakes.Recorder()

    def distiller(self) -> workflow.SkillDistiller:
        work = stages.Stages(
            self.board, self.others.all, step_timeout_s=30, confirm_s=3, clock=fakes.Clock()
        )
        return workflow.SkillDistiller(work, self.recorder)

    async def learn(self, task_id: str) -> tasks.TrainingTask:
        self.recorder = fakes.Recorder()
        await self.distiller().learn(task_id)
        return await self.board.get(task_id)

    async def teach(self, name: str = NAME, priority: int = 0) -> tasks.TrainingTask:
        return await self.queue.teach("", "", priority, "", repository=name)

    async def taught(self, name: str = NAME) -> tasks.TrainingTask:
        """A code base that was learned."""
        task = await self.learn((await self.teach(name)).id)
        assert task.status is S.COMPLETED, task.error
        return task

    async def open_tasks(self) -> list[tasks.TrainingTask]:
        return await self.board.open()


@pytest.fixture
def others() -> fakes.Others:
    return fakes.Others()


@pytest.fixture
async def factory(tmp_path: pathlib.Path, others: fakes.Others) -> AsyncIterator[Factory]:
    opened = Factory(tmp_path, others, Clock())
    yield opened
    await opened.board.close()


async def test_one_task_is_open_when_a_repository_is_taught_twice(factory: Factory) -> None:
    task = await factory.queue.teach("", "", 4, "k", repository=NAME)
    assert (task.repository, task.trigger_query, task.priority) == (NAME, NAME, 4)
    assert task.queries == ()
    assert (await factory.queue.teach("", "", 4, "k", repository=NAME)).id == task.id
    assert (await factory.teach()).id == task.id
    assert (await factory.teach("other")).id != task.id
    assert factory.handed_in.entries[0] == (task.id, 4, 0.0)
    with pytest.raises(errors.AlreadyExistsError):
        await factory.queue.teach("tides", "", 4, "k")


@pytest.mark.parametrize(
    ("topic", "document", "name"),
    [("tides", "", NAME), ("", "a.md", NAME), ("", "", "../etc"), ("", "", "A"), ("", "", "-a")],
)
async def test_teaching_is_refused_when_it_names_more_or_no_repository(
    factory: Factory, topic: str, document: str, name: str
) -> None:
    with pytest.raises(errors.InvalidInputError):
        await factory.queue.teach(topic, document, 0, "", repository=name)
    assert await factory.open_tasks() == []


async def test_card_is_published_when_a_repository_is_learned(
    factory: Factory, others: fakes.Others
) -> None:
    task = await factory.taught()
    assert (task.card, task.domain, task.commit_id) == ("zorblax@abc", "code", fakes.COMMIT)
    assert task.detail == "learned from repository: 12 complete"
    assert others.calls == [
        f"distil {NAME}", "commit dataset", "versions", "train", "prove", "commit card",
    ]  # fmt: skip
    [order] = others.orders
    assert (order.skill_name, order.dataset.kind) == (CARD, "samples")
    assert others.probes == [(fakes.PROBE, "zorblax@abc")]
    assert others.asked == 0


@pytest.mark.parametrize("step", ["distil", "keep dataset", "train 1", "prove 1", "confirm"])
async def test_nothing_is_repeated_when_the_factory_was_killed_while_it_learned_a_repository(
    factory: Factory, others: fakes.Others, step: str
) -> None:
    task = await factory.teach()
    factory.recorder.kill_at = step
    with pytest.raises(fakes.KilledError):
        await factory.distiller().learn(task.id)
    done = len(others.calls)
    await factory.distiller().learn(task.id)
    assert (await factory.board.get(task.id)).status is S.COMPLETED
    assert (await factory.board.get(task.id)).commit_id == fakes.COMMIT
    # The step that was not recorded is the only one that a service is asked for again.
    assert len(set(others.calls[:done]) & set(others.calls[done:])) <= 1


async def test_seed_and_rank_are_others_when_drafts_of_a_repository_are_refused(
    factory: Factory, others: fakes.Others
) -> None:
    others.verdicts = [False, False, False]
    task = await factory.learn((await factory.teach()).id)
    assert task.status is S.FAILED
    assert "first try" in task.error and "with another seed" in task.error
    assert [(one.seed, one.rank_factor) for one in others.orders] == [(1, 1), (2, 1), (3, 2)]
    assert not any(call.startswith("enlarge") for call in others.calls)
    assert len({one.run_id for one in others.orders}) == 3
    retried = await factory.queue.retry(task.id, "")
    assert (retried.repository, retried.commit_id, retried.retry_of) == (NAME, "", task.id)


async def test_card_is_asked_again_until_the_node_serves_it(
    factory: Factory, others: fakes.Others
) -> None:
    others.completions = [
        errors.NotFoundError("not served"),
        errors.UnavailableError("the node restarts"),
        partners.Reply(" x", "specialist-tidal@older"),
    ]
    await factory.taught()
    assert len(others.probes) == 4


async def test_version_before_serves_again_when_the_node_never_serves_the_card(
    factory: Factory, others: fakes.Others
) -> None:
    others.completions = [errors.NotFoundError("not served")] * 50
    task = await factory.learn((await factory.teach()).id)
    assert task.status is S.FAILED
    assert "does not complete on the inference node: not served" in task.error
    assert "zorblax@older serves again" in task.error


async def test_code_base_is_learned_again_at_night_when_it_moved_on(
    factory: Factory, others: fakes.Others
) -> None:
    await factory.taught()
    others.heads = [partners.Repository(NAME, OTHER_COMMIT)]
    factory.clock.now_ms = at_ms(2, 3)
    await factory.shift.run_due()
    [task] = await factory.open_tasks()
    assert (task.repository, task.priority) == (NAME, tasks.LOWEST_PRIORITY)
    assert task.night == "cron:2026-03-02T02:00:00+00:00"
    assert factory.handed_in.entries[-1][0] == task.id
    # By day it goes on, and is left alone until the next night.
    factory.clock.now_ms += HOUR_MS
    others.heads = [partners.Repository(NAME, "e" * 40)]
    await factory.shift.run_due()
    assert [one.id for one in await factory.open_tasks()] == [task.id]
    assert others.calls.count("repositories") == 1


async def test_commit_is_learned_once_when_learning_it_failed(
    factory: Factory, others: fakes.Others
) -> None:
    await factory.taught()
    others.heads = [partners.Repository(NAME, OTHER_COMMIT)]
    others.verdicts = [False, False, False]
    await factory.shift.run_now("first")
    [task] = await factory.open_tasks()
    assert (await factory.learn(task.id)).status is S.FAILED
    await factory.shift.run_now("second")
    assert await factory.open_tasks() == []
    others.heads = [partners.Repository(NAME, "e" * 40)]
    await factory.shift.run_now("third")
    assert len(await factory.open_tasks()) == 1


@pytest.mark.parametrize(
    "heads",
    [
        [partners.Repository(NAME, fakes.COMMIT)],
        [],
        [partners.Repository(NAME, "", "the folder is gone")],
        [partners.Repository("other", OTHER_COMMIT)],
    ],
)
async def test_nothing_is_learned_at_night_when_the_code_base_is_as_it_was_or_gone(
    factory: Factory, others: fakes.Others, heads: list[partners.Repository]
) -> None:
    await factory.taught()
    others.heads = heads
    await factory.shift.run_now("night")
    assert await factory.open_tasks() == []


async def test_others_are_learned_at_night_when_one_code_base_can_not_be(
    factory: Factory, others: fakes.Others
) -> None:
    await factory.taught()
    await factory.taught("zonal")
    # Somebody's own key that happens to be the one of the night.
    await factory.queue.teach("tides", "", 5, f"code:{NAME}:{OTHER_COMMIT}")
    others.heads = [
        partners.Repository(NAME, OTHER_COMMIT),
        partners.Repository("zonal", OTHER_COMMIT),
    ]
    await factory.shift.run_now("night")
    opened = await factory.open_tasks()
    assert sorted(one.repository for one in opened) == ["", "zonal"]


async def test_questions_are_learned_at_night_when_nobody_tells_of_repositories(
    factory: Factory, others: fakes.Others
) -> None:
    await factory.taught()
    others.repositories_error = errors.UnavailableError("the distiller is away")
    low = await factory.queue.teach("salt", "", 1, "")
    night = await factory.shift.run_now("night")
    assert [skill.tasks for skill in night.skills] == [(low.id,)]


async def test_distiller_is_not_asked_at_night_when_no_code_base_was_learned(
    factory: Factory, others: fakes.Others
) -> None:
    factory.clock.now_ms = at_ms(2, 3)
    assert await factory.shift.run_due() is None
    assert "repositories" not in others.calls


async def test_repository_is_a_skill_of_its_own_when_questions_wait_with_it() -> None:
    gaps = [
        dataclasses.replace(fakes.task("t1", "tidal"), repository="tidal"),
        fakes.task("t2", "tidal"),
    ]
    found = clusters.skills(gaps, await embed(["tidal", "tidal"]), 0.1)
    assert sorted(skill.tasks for skill in found) == [("t1",), ("t2",)]
