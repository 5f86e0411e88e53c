"""Versions of one skill under a factory process: compared when made, proved again, rolled back."""

from __future__ import annotations

import asyncio
import pathlib

from shared.pb import factory_pb2
from tests import fake_services
from tests.contract.factory_process import ANSWER, QUESTION, FactoryProcess, status


async def test_worse_version_makes_room_for_the_one_before_when_it_is_proved_again(
    tmp_path: pathlib.Path,
) -> None:
    others = fake_services.FakeServices()
    others.distiller.answers[QUESTION] = ANSWER
    await others.start()
    factory = FactoryProcess(tmp_path, others, recheck={"every_hours": 0})
    try:
        await factory.start()
        first, second = [
            await factory.ended((await factory.report(QUESTION, f"event-{at}")).task_id)
            for at in (1, 2)
        ]
        assert [status(first), status(second)] == ["COMPLETED"] * 2
        assert [one.version for one in others.store.cards] == ["1.0.0", "1.1.0"]
        assert others.store.latest == "1.1.0"
        old, new = (task.card.partition("@")[2] for task in (first, second))
        alone, compared = others.trainer.prove.requests
        assert not alone.HasField("previous")
        assert compared.previous.card_digest == old
        assert compared.previous.dataset_digest == alone.dataset.digest
        await factory.terminate()

        others.trainer.worse.add(new)
        await factory.close()
        factory = FactoryProcess(tmp_path, others, recheck={"every_hours": 1e-9})
        await factory.start()
        request = factory_pb2.GetTaskRequest(id=second.id)
        async with asyncio.timeout(120):
            while others.store.latest != "1.0.0":
                await asyncio.sleep(0.05)
        task = await factory.stub.GetTask(request)
    finally:
        await factory.close()
        await others.stop()

    assert status(task) == "FAILED"
    assert "held_out 1/4 (3/4 before); it makes room for zorblax-trade@" in task.error
    proved = {one.published.card_digest: one for one in others.trainer.rechecked}
    assert proved.keys() == {old, new}
    assert [(t.query, t.expected_answer) for t in proved[new].triggers] == [(QUESTION, ANSWER)]
    assert proved[new].published.dataset_digest == compared.dataset.digest
