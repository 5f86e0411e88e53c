from __future__ import annotations

import asyncio

import pytest

from services.factory import board, tasks
from shared import errors
from tests.unit.factory import fakes


async def test_watch_shows_every_change_when_it_began_before(tasks_board: board.TaskBoard) -> None:
    await tasks_board.record(fakes.event(), fakes.task())
    watch = tasks_board.watch("t1")
    seen = [await anext(watch)]
    for progress in (0.1, 0.2, 0.3):
        await tasks_board.change("t1", lambda task, p=progress: task.progressed(p, "", 2000))  # type: ignore[misc]
    await tasks_board.change("t1", lambda task: task.failed("why", 3000))
    seen += [task async for task in watch]
    assert [task.progress for task in seen] == [0.0, 0.1, 0.2, 0.3, 0.0]
    assert seen[-1].status is tasks.TaskStatus.FAILED


async def test_watch_ends_at_once_when_the_task_has_ended(tasks_board: board.TaskBoard) -> None:
    await tasks_board.record(fakes.event(), fakes.task())
    await tasks_board.change("t1", lambda task: task.failed("why", 2000))
    assert [task.error async for task in tasks_board.watch("t1")] == ["why"]


async def test_watch_fails_when_the_task_is_unknown(tasks_board: board.TaskBoard) -> None:
    with pytest.raises(errors.NotFoundError):
        await anext(tasks_board.watch("nobody"))


async def test_task_is_found_when_its_event_arrives_later(tasks_board: board.TaskBoard) -> None:
    async with asyncio.TaskGroup() as group:
        finding = group.create_task(tasks_board.of_event("e1", wait_s=60))
        await asyncio.sleep(0)
        group.create_task(tasks_board.record(fakes.event("e1"), fakes.task()))
    assert finding.result().id == "t1"


async def test_task_is_not_found_when_its_event_does_not_arrive(
    tasks_board: board.TaskBoard,
) -> None:
    with pytest.raises(errors.NotFoundError, match="has not arrived"):
        await tasks_board.of_event("e1", wait_s=0)
