"""DBOS for real, in this process."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.factory import durable

PATIENCE_S = 60


class Work:
    """A workflow of two steps; notes what runs."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.ended: asyncio.Queue[str] = asyncio.Queue()
        self.hold: asyncio.Event | None = None
        self.holding = asyncio.Event()
        self.runtime: durable.Runtime | None = None

    async def learn(self, task_id: str) -> None:
        for number in (1, 2):
            result = await self._step(task_id, number)
            assert result == {"value": [task_id, number]}
        self.ended.put_nowait(task_id)

    async def _step(self, task_id: str, number: int) -> dict[str, Any]:
        async def body() -> dict[str, Any]:
            if number == 2 and self.hold is not None:
                self.holding.set()
                await self.hold.wait()
            self.ran.append(f"{task_id}.{number}")
            return {"value": [task_id, number]}

        assert self.runtime is not None
        return await self.runtime.step(f"step {number}", body)

    async def next_end(self) -> str:
        return await asyncio.wait_for(self.ended.get(), PATIENCE_S)


async def start(work: Work, folder: pathlib.Path) -> durable.Runtime:
    runtime = durable.Runtime(f"sqlite:///{folder / 'dbos.sqlite'}", concurrency=1)
    work.runtime = runtime
    await runtime.start(work.learn)
    return runtime


@pytest.fixture
async def work(tmp_path: pathlib.Path) -> AsyncIterator[Work]:
    work = Work()
    await start(work, tmp_path)
    yield work
    assert work.runtime is not None
    await work.runtime.stop()


async def test_most_urgent_task_comes_first_when_several_wait(work: Work) -> None:
    assert work.runtime is not None
    work.hold = asyncio.Event()
    await work.runtime.enqueue("first", 3)
    await asyncio.wait_for(work.holding.wait(), PATIENCE_S)
    for task_id, priority in (("low", 1), ("critical", 5), ("usual", 3), ("usual", 3)):
        await work.runtime.enqueue(task_id, priority)
    work.hold.set()
    assert [await work.next_end() for _ in range(4)] == ["first", "critical", "usual", "low"]
    assert len(work.ran) == 8
    assert await work.runtime.ended(["nobody"]) == set()


async def test_finished_step_is_not_repeated_when_the_runtime_was_stopped(
    work: Work, tmp_path: pathlib.Path
) -> None:
    assert work.runtime is not None
    work.hold = asyncio.Event()
    await work.runtime.enqueue("a", 3)
    await asyncio.wait_for(work.holding.wait(), PATIENCE_S)
    await work.runtime.stop()
    work.hold = None
    await start(work, tmp_path)
    assert await work.next_end() == "a"
    assert work.ran == ["a.1", "a.2"]


async def test_next_task_takes_the_place_when_one_is_cancelled(work: Work) -> None:
    assert work.runtime is not None
    work.hold = asyncio.Event()
    await work.runtime.enqueue("a", 3)
    await asyncio.wait_for(work.holding.wait(), PATIENCE_S)
    await work.runtime.cancel("a")
    work.hold = None
    await work.runtime.enqueue("b", 3)
    assert await work.next_end() == "b"
    assert "a.2" not in work.ran
    assert await work.runtime.ended(["a"]) == {"a"}


async def test_task_counts_as_over_when_another_version_of_the_workflow_began_it(
    work: Work, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert work.runtime is not None
    work.hold = asyncio.Event()
    await work.runtime.enqueue("old", 3)
    await asyncio.wait_for(work.holding.wait(), PATIENCE_S)
    assert await work.runtime.ended(["old"]) == set()
    await work.runtime.stop()
    monkeypatch.setattr(durable, "WORKFLOW_VERSION", "of tomorrow")
    await start(work, tmp_path)
    assert await work.runtime.ended(["old"]) == {"old"}
