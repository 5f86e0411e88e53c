"""The nightly batch of a factory process that is killed, between stand-ins for the others."""

from __future__ import annotations

import asyncio
import collections
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest

from shared.pb import factory_pb2, router_pb2, router_pb2_grpc
from tests import fake_router_peers, fake_services
from tests.contract.factory_process import PATIENCE_S, FactoryProcess, status, within

ABOUT = {
    "What does Zorblax trade?": "blue salt",
    "What does Zorblax eat?": "dried fish",
    "What does Zorblax drink?": "cold tea",
    "Who runs old Tarnock mill?": "Ada Quill",
    "Where lies old Tarnock mill?": "Lower Brook",
}


class Router(router_pb2_grpc.RouterServicer):
    """Embeds."""

    async def Embed(
        self, request: router_pb2.EmbedRequest, context: Any
    ) -> router_pb2.EmbedResponse:
        vectors_N_D = fake_router_peers.HashingEmbedder().embed(request.texts)
        return router_pb2.EmbedResponse(
            dimension=vectors_N_D.shape[1],
            vectors=np.ascontiguousarray(vectors_N_D, dtype="<f4").tobytes(),
        )


@pytest.fixture
async def router_address() -> AsyncIterator[str]:
    server = grpc.aio.server()
    router_pb2_grpc.add_RouterServicer_to_server(Router(), server)  # type: ignore[abstract]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


@pytest.fixture
async def others() -> AsyncIterator[fake_services.FakeServices]:
    services = fake_services.FakeServices()
    services.distiller.answers.update(ABOUT)
    await services.start()
    yield services
    await services.stop()


@pytest.mark.parametrize("stage", ["gathered", "distilling", "training", "publishing"])
async def test_night_loses_and_doubles_nothing_when_the_factory_is_killed_while(
    stage: str,
    others: fake_services.FakeServices,
    router_address: str,
    tmp_path: pathlib.Path,
) -> None:
    doings = {
        "distilling": others.distiller.distil,
        "training": others.trainer.train,
        "publishing": others.store.published,
    }
    night = {"priority_below": 4, "same_skill": 0.5}
    judgement = {"same_gap": 1.0, "small_talk": 1.0}
    factory = FactoryProcess(
        tmp_path,
        others,
        router_address=router_address,
        nightly=night,
        judgement=judgement,
    )
    await factory.start()
    try:
        ids = [
            (await factory.report(query, f"event-{at}")).task_id for at, query in enumerate(ABOUT)
        ]
        held = await factory.stub.GetTask(factory_pb2.GetTaskRequest(id=ids[0]))
        if stage != "gathered":
            doings[stage].gate.shut()
        request = factory_pb2.RunNightlyRequest(idempotency_key="tonight")
        first = await factory.stub.RunNightly(request, timeout=PATIENCE_S)
        if stage != "gathered":
            await within(doings[stage].gate.reached.wait())
        await factory.kill()
        if stage != "gathered":
            doings[stage].gate.open()
        await factory.start()
        again = await factory.stub.RunNightly(request, timeout=PATIENCE_S)
        ended = await asyncio.gather(*map(factory.ended, ids))
    finally:
        await factory.close()

    assert "waits for the night: starts after" in held.detail
    assert first == again
    assert [set(skill.task_ids) for skill in first.skills] == [set(ids[:3]), set(ids[3:])]
    assert [status(task) for task in ended] == ["COMPLETED"] * 5
    leaders = [skill.task_ids[0] for skill in first.skills]
    joined = {task.id: task.joined_into for task in ended if task.joined_into}
    assert joined == {one: leader for leader, skill in zip(leaders, first.skills, strict=True)
                      for one in skill.task_ids[1:]}  # fmt: skip
    for done in doings.values():
        assert set(done.finished.values()) == {1}
    assert list(others.distiller.distil.finished) == leaders
    assert len(others.store.cards) == 2
    asked = collections.Counter(
        query
        for request in {r.task_id: r for r in others.distiller.distil.requests}.values()
        for query in request.queries
    )
    assert asked == collections.Counter(list(ABOUT))
