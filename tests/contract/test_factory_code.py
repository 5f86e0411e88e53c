"""A code base learned by a factory process that is killed, between stand-ins for the others."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator

import pytest

from shared.pb import factory_pb2
from tests import fake_services
from tests.contract.factory_process import FactoryProcess, status, within

COMMIT = "c" * 40
TIDAL = factory_pb2.TeachRequest(idempotency_key="k", repository="tidal", priority=4)


@pytest.fixture
async def others() -> AsyncIterator[fake_services.FakeServices]:
    services = fake_services.FakeServices()
    services.distiller.commits["tidal"] = COMMIT
    await services.start()
    yield services
    await services.stop()


@pytest.fixture
async def factory(
    others: fake_services.FakeServices, tmp_path: pathlib.Path
) -> AsyncIterator[FactoryProcess]:
    process = FactoryProcess(tmp_path, others)
    await process.start()
    yield process
    await process.close()


async def test_card_of_a_code_base_is_published_and_completes(
    factory: FactoryProcess, others: fake_services.FakeServices
) -> None:
    others.inference.behind = 2
    task = await factory.stub.Teach(TIDAL)
    assert (task.repository, task.priority) == ("tidal", 4)
    last = (await factory.watched(task.id))[-1]
    assert (status(last), last.error) == ("COMPLETED", "")
    assert (last.repository, last.commit_id, last.domain) == ("tidal", COMMIT, "code")
    assert last.card.startswith("specialist-tidal@")
    assert last.detail.endswith("20 complete, 10 write, from 2 files at commit cccccccccccc")
    [order] = others.trainer.train.requests
    assert (order.dataset.kind, order.skill_name) == ("samples", "specialist-tidal")
    assert list(others.trainer.prove.requests[0].triggers) == []
    assert [one.model for one in others.inference.completed] == [last.card] * 3
    assert {one.prefix for one in others.inference.completed} == {"def half(x):"}
    assert others.inference.requests == [] and others.distiller.located == 0
    assert (await factory.stub.Teach(TIDAL)).id == task.id


@pytest.mark.parametrize("stage", ["distil", "train", "prove", "commit"])
async def test_nothing_is_done_twice_when_the_factory_is_killed_in_a_stage(
    factory: FactoryProcess, others: fake_services.FakeServices, stage: str
) -> None:
    doings = {
        "distil": others.distiller.distil,
        "train": others.trainer.train,
        "prove": others.trainer.prove,
        "commit": others.store.published,
    }[stage]
    doings.gate.shut()
    task = await factory.stub.Teach(TIDAL)
    await within(doings.gate.reached.wait())
    await factory.kill()
    doings.gate.open()
    await factory.start()
    last = (await factory.watched(task.id))[-1]
    assert (status(last), last.error) == ("COMPLETED", "")
    assert len(others.store.cards) == 1
    for one in (others.distiller.distil, others.trainer.train, others.trainer.prove):
        assert list(one.finished.values()) == [1]


async def test_code_base_is_learned_anew_at_night_when_it_moved_on(
    factory: FactoryProcess, others: fake_services.FakeServices
) -> None:
    first = (await factory.watched((await factory.stub.Teach(TIDAL)).id))[-1]
    night = factory_pb2.RunNightlyRequest(idempotency_key="n1")
    assert list((await factory.stub.RunNightly(night)).skills) == []
    others.distiller.commits["tidal"] = "d" * 40
    night = factory_pb2.RunNightlyRequest(idempotency_key="n2")
    [skill] = (await factory.stub.RunNightly(night)).skills
    last = (await factory.watched(skill.task_ids[0]))[-1]
    assert (status(last), last.commit_id, last.priority) == ("COMPLETED", "d" * 40, 1)
    assert last.card != first.card
    assert [card.version for card in others.store.cards] == ["1.0.0", "1.1.0"]


async def test_distiller_is_told_when_learning_a_code_base_is_cancelled(
    factory: FactoryProcess, others: fake_services.FakeServices
) -> None:
    others.distiller.distil.gate.shut()
    task = await factory.stub.Teach(TIDAL)
    await within(others.distiller.distil.gate.reached.wait())
    ended = await factory.stub.CancelTask(factory_pb2.CancelTaskRequest(id=task.id))
    assert status(ended) == "CANCELLED" and task.id in others.distiller.cancelled
    others.distiller.distil.gate.open()
    retry = factory_pb2.RetryTaskRequest(id=task.id, idempotency_key="r")
    retried = await factory.stub.RetryTask(retry)
    last = (await factory.watched(retried.id))[-1]
    assert (status(last), last.repository) == ("COMPLETED", "tidal")
