from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from services.factory import board, partners, stages, tasks, trainers, workflow
from shared import errors
from tests.unit.factory import fakes


class Shop:
    """Trainers with disks of their own; those in `down` neither serve nor answer."""

    def __init__(self, *addresses: str) -> None:
        self.down: set[str] = set()
        self.calls: list[str] = []
        self.clock = fakes.Clock()
        self.dies_after: dict[str, str] = {}
        by_address: dict[str, partners.Trainer] = {a: One(self, a) for a in addresses}
        self.pool = trainers.TrainerPool(by_address, self.serves, 3.0, self.clock)

    async def serves(self, address: str) -> bool:
        return address not in self.down


class One:
    def __init__(self, shop: Shop, address: str) -> None:
        self._shop, self._address = shop, address

    async def train(self, order: partners.TrainingOrder, on_progress: Any) -> partners.Trained:
        self._call("train")
        return partners.Trained(fakes.ticket(f"draft of {self._address}"), 40, 0.01, 1.0, 2.0)

    async def prove(
        self,
        run_id: str,
        dataset: Any,
        draft: partners.Ticket,
        triggers: Any,
        on_progress: Any,
        before: partners.Published | None = None,
    ) -> partners.Proof:
        self._call("prove")
        assert draft.name == f"draft of {self._address}"
        row = partners.GateRow("held_out", 8, 8, 0.5, True)
        return partners.Proof(True, (row,), fakes.ticket("card"), 1.0, "signed")

    async def recheck(
        self, recheck_id: str, card: partners.Published, triggers: Any, on_progress: Any
    ) -> partners.Rechecked:
        raise NotImplementedError

    def _call(self, what: str) -> None:
        call = f"{what} {self._address}"
        if self._address in self._shop.down:
            raise errors.UnavailableError("connection lost")
        self._shop.calls.append(call)
        dying = self._shop.dies_after.get(call)
        if dying is not None:
            self._shop.down.add(self._address)
            if dying == "before its answer":
                raise errors.UnavailableError("connection lost")


async def workflow_of(
    shop: Shop, kept: board.TaskBoard, recorder: fakes.Recorder
) -> workflow.SkillDistiller:
    await kept.record(fakes.event(), fakes.task())
    others = dataclasses.replace(fakes.Others().all, trainers=shop.pool)
    work = stages.Stages(kept, others, 10_000, confirm_s=3, clock=fakes.Clock(0.01))
    return workflow.SkillDistiller(work, recorder)


async def held(pool: trainers.TrainerPool, number: int) -> Sequence[str]:
    """The addresses of so many trainers borrowed at the same time."""
    if not number:
        return []
    async with pool.borrowed("") as (address, _):
        return [address, *await held(pool, number - 1)]


async def test_work_goes_to_the_freest_when_several_serve() -> None:
    shop = Shop("a", "b", "c")
    assert await held(shop.pool, 4) == ["a", "b", "c", "a"]
    shop.down.add("a")
    assert await held(shop.pool, 3) == ["b", "c", "b"]


async def test_two_workflows_get_two_trainers_when_they_ask_at_once() -> None:
    shop, both = Shop("a", "b"), asyncio.Barrier(2)

    async def work() -> str:
        async with shop.pool.borrowed("") as (address, _):
            await both.wait()
            return address

    assert set(await asyncio.gather(work(), work())) == {"a", "b"}


async def test_error_names_the_trainers_when_none_serves() -> None:
    shop = Shop("a", "b")
    shop.down.update("ab")
    with pytest.raises(errors.UnavailableError, match="a, b"):
        async with shop.pool.borrowed(""):
            pass


async def test_trainer_is_waited_for_when_it_is_the_only_one() -> None:
    shop = Shop("a")
    shop.down.add("a")
    assert not await shop.pool.lost("a")


async def test_trainer_is_not_lost_when_it_comes_back_in_time() -> None:
    shop = Shop("a", "b")
    shop.down.add("a")
    assert not await shop.pool.lost("a")
    shop.down.clear()
    shop.clock.now_s += 100
    assert not await shop.pool.lost("a")
    shop.down.add("a")
    assert not await shop.pool.lost("a")
    shop.clock.now_s += 4
    assert await shop.pool.lost("a")
    shop.down.add("b")
    assert not await shop.pool.lost("a")


@pytest.mark.parametrize(
    ("dies", "calls"),
    [
        ({"train a": "before its answer"}, ["train a", "train b", "prove b"]),
        ({"train a": "after it"}, ["train a", "train b", "prove b"]),
        ({"prove a": "before its answer"}, ["train a", "prove a", "train b", "prove b"]),
        ({"prove a": "after it"}, ["train a", "prove a"]),
    ],
)
async def test_card_is_made_elsewhere_when_its_trainer_dies(
    dies: dict[str, str],
    calls: list[str],
    tasks_board: board.TaskBoard,
) -> None:
    shop, recorder = Shop("a", "b"), fakes.Recorder()
    shop.dies_after = dies
    await (await workflow_of(shop, tasks_board, recorder)).learn("t1")
    assert shop.calls == calls
    assert (await tasks_board.get("t1")).status is tasks.TaskStatus.COMPLETED
    again = ("train b" in calls and "prove a" in calls) or dies.get("train a") == "after it"
    assert ("train 1 again 1" in recorder.written) == again


@pytest.mark.parametrize("step", ["train 1", "prove 1"])
async def test_same_trainer_is_asked_when_the_factory_was_killed(
    step: str, tasks_board: board.TaskBoard
) -> None:
    shop, recorder = Shop("a", "b"), fakes.Recorder()
    distiller = await workflow_of(shop, tasks_board, recorder)
    recorder.kill_at = step
    async with shop.pool.borrowed(""):
        with pytest.raises(fakes.KilledError):
            await distiller.learn("t1")
    # Now `a` would be taken by whoever knows nothing of the first call.
    await distiller.learn("t1")
    assert {call.split()[1] for call in shop.calls} == {"b"}
    assert len(shop.calls) == 3
