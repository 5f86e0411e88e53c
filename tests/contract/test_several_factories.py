"""Two factory processes on one PostgreSQL database; one of them is killed."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
import sqlalchemy as sa

from shared.pb import factory_pb2
from tests import fake_services, postgres
from tests.contract import addresses
from tests.contract.factory_process import ANSWER, QUESTION, FactoryProcess, status, within


@pytest.fixture
def database() -> Iterator[str]:
    programs = postgres.programs()
    if programs is None:
        pytest.skip("PostgreSQL's programs are not on this machine")
    port = int(addresses.free_address().rpartition(":")[2])
    with postgres.running(programs, port) as url:
        yield url


@pytest_asyncio.fixture
async def others() -> AsyncIterator[fake_services.FakeServices]:
    services = fake_services.FakeServices()
    services.distiller.answers[QUESTION] = ANSWER
    await services.start()
    yield services
    await services.stop()


@pytest_asyncio.fixture
async def both(
    others: fake_services.FakeServices, database: str, tmp_path: pathlib.Path
) -> AsyncIterator[list[FactoryProcess]]:
    factories = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        factories.append(FactoryProcess(tmp_path / name, others, database_url=database))
    # Together: both find an empty database.
    await asyncio.gather(*(one.start() for one in factories))
    yield factories
    for one in factories:
        await one.close()


def owner(database: str, task_id: str) -> str:
    """The factory that runs a task's workflow."""
    engine = sa.create_engine(database)
    query = sa.text("SELECT executor_id FROM dbos.workflow_status WHERE workflow_uuid = :id")
    with engine.connect() as connection:
        found = str(connection.scalar(query, {"id": task_id}))
    engine.dispose()
    return found


def events_of(database: str, task_id: str) -> list[str]:
    """The states that a task went through."""
    engine = sa.create_engine(database)
    query = sa.text("SELECT status FROM task_updates WHERE task_id = :id ORDER BY sequence")
    with engine.connect() as connection:
        found = [str(one) for one in connection.scalars(query, {"id": task_id})]
    engine.dispose()
    return found


async def test_other_factory_goes_on_when_the_one_at_work_is_killed(
    both: list[FactoryProcess], others: fake_services.FakeServices, database: str
) -> None:
    others.trainer.train.gate.shut()
    reported = await both[0].report(QUESTION, "e1")
    # Known at once by whoever is asked, the same gap opens no second task anywhere.
    again = await both[1].report(QUESTION, "e2")
    assert again.task_id == reported.task_id and not again.created
    await within(others.trainer.train.gate.reached.wait())
    at_work = 0 if owner(database, reported.task_id) in both[0].log() else 1
    killed, left = both[at_work], both[1 - at_work]
    watching = asyncio.create_task(left.ended(reported.task_id))
    await killed.kill()
    others.trainer.train.gate.open()
    task = await within(watching)
    assert status(task) == "COMPLETED", task
    assert others.distiller.distil.finished == {task.id: 1}
    assert [one for one in events_of(database, task.id) if one == "COMPLETED"] == ["COMPLETED"]
    assert owner(database, task.id) in left.log()


async def test_watcher_hears_of_a_task_when_another_factory_runs_it(
    both: list[FactoryProcess], others: fake_services.FakeServices
) -> None:
    others.trainer.train.gate.shut()
    reported = await both[0].report(QUESTION, "e1")
    await within(others.trainer.train.gate.reached.wait())
    ends = [asyncio.create_task(one.ended(reported.task_id)) for one in both]
    found = await within(
        both[1].stub.FindTask(factory_pb2.FindTaskRequest(event_id="e1", wait_s=5))
    )
    assert found.id == reported.task_id
    others.trainer.train.gate.open()
    assert [status(task) for task in await within(asyncio.gather(*ends))] == ["COMPLETED"] * 2


async def test_training_ends_when_its_task_is_cancelled_at_the_other_factory(
    both: list[FactoryProcess], others: fake_services.FakeServices, database: str
) -> None:
    others.trainer.train.gate.shut()
    reported = await both[0].report(QUESTION, "e1")
    await within(others.trainer.train.gate.reached.wait())
    at_work = 0 if owner(database, reported.task_id) in both[0].log() else 1
    request = factory_pb2.CancelTaskRequest(id=reported.task_id)
    await both[1 - at_work].stub.CancelTask(request, timeout=30)
    task = await both[at_work].ended(reported.task_id)
    assert status(task) == "CANCELLED"
    others.trainer.train.gate.open()
    # The next one finds the queue free.
    others.distiller.answers["Who runs the mill?"] = "Ada"
    reported = await both[at_work].report("Who runs the mill?", "e9")
    assert status(await both[1 - at_work].ended(reported.task_id)) == "COMPLETED"
