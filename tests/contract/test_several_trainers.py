"""Two trainer processes under one factory process; one of them is killed."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from shared.pb import trainer_pb2
from tests import fake_services
from tests.contract.factory_process import ANSWER, QUESTION, FactoryProcess, status, within
from tests.contract.trainer_process import TrainerProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")
OTHER_QUESTION = "Who runs the old Tarnock mill?"


@pytest_asyncio.fixture(loop_scope="module")
async def others() -> AsyncIterator[fake_services.FakeServices]:
    services = fake_services.FakeServices()
    services.distiller.answers.update({QUESTION: ANSWER, OTHER_QUESTION: "Ada Quill"})
    # The store takes a card's name from here, as the trainers are not among these services.
    services.trainer.train.requests.append(
        trainer_pb2.TrainRequest(
            skill_name="zorblax-trade",
            version="1.0.0",
            dataset=fake_services.ticket("dataset", "zorblax-trade"),
        )
    )
    await services.start()
    yield services
    await services.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def trainers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[TrainerProcess]]:
    """Two that may run; starting one takes longer than what a test does with it."""
    folder = tmp_path_factory.mktemp("trainers")
    processes = [TrainerProcess(folder / name) for name in ("first", "second")]
    yield processes
    for one in processes:
        await one.kill()


@pytest_asyncio.fixture(loop_scope="module")
async def both(trainers: list[TrainerProcess]) -> list[TrainerProcess]:
    """The two, both running, with nothing done yet."""
    await asyncio.gather(*(one.start() for one in trainers if not one.runs))
    for one in trainers:
        one.forget()
    return trainers


@pytest_asyncio.fixture(loop_scope="module")
async def factory(
    both: list[TrainerProcess], others: fake_services.FakeServices, tmp_path: pathlib.Path
) -> AsyncIterator[FactoryProcess]:
    process = FactoryProcess(
        tmp_path,
        others,
        trainers=[one.address for one in both],
        concurrency=2,
        trainer_grace_s=0.5,
    )
    await process.start()
    yield process
    await process.close()


@pytest.mark.parametrize("stage", ["train", "prove"])
async def test_card_is_made_elsewhere_when_the_trainer_is_killed_while_it_is_to(
    stage: str,
    factory: FactoryProcess,
    both: list[TrainerProcess],
    others: fake_services.FakeServices,
) -> None:
    first, second = both
    first.hold(stage)
    task_id = (await factory.report(QUESTION, "event-1")).task_id
    await begun(first, f"{stage} {task_id}")
    await first.kill()
    last = await factory.ended(task_id)

    assert status(last) == "COMPLETED"
    assert second.done == [f"train {task_id}", f"prove {task_id}"]
    assert first.done == second.done[: len(first.done)]
    assert len(others.store.cards) == 1
    assert others.distiller.distil.asked[task_id] == 1


async def test_same_trainer_goes_on_when_the_factory_is_killed(
    factory: FactoryProcess, both: list[TrainerProcess]
) -> None:
    first, second = both
    first.hold("train")
    task_id = (await factory.report(QUESTION, "event-1")).task_id
    await begun(first, f"train {task_id}")
    await factory.kill()
    await factory.start()
    first.let_go()
    assert status(await factory.ended(task_id)) == "COMPLETED"
    assert first.done == [f"train {task_id}", f"prove {task_id}"]
    assert second.done == []


async def test_both_work_when_there_are_two_tasks(
    factory: FactoryProcess, both: list[TrainerProcess]
) -> None:
    for one in both:
        one.hold("train")
    ids = [
        (await factory.report(query, f"event-{query}")).task_id
        for query in (QUESTION, OTHER_QUESTION)
    ]
    async with asyncio.timeout(120):
        while not all(one.done for one in both):
            await asyncio.sleep(0.05)
    assert sorted(done for one in both for done in one.done) == sorted(f"train {i}" for i in ids)
    # One after the other, as the stand-in of a node knows the newest card alone.
    for one in both:
        task_id = one.done[0].split()[1]
        one.let_go()
        assert status(await factory.ended(task_id)) == "COMPLETED"
    assert [len(one.done) for one in both] == [2, 2]


async def begun(trainer: TrainerProcess, what: str) -> None:
    async def look() -> None:
        while what not in trainer.done:
            await asyncio.sleep(0.05)

    await within(look())
