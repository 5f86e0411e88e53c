"""Which tasks, and what of them, callers of several tenants see."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator

import pytest

from shared.pb import factory_pb2, types_pb2
from tests import fake_services
from tests.contract.factory_process import PATIENCE_S, FactoryProcess, guarded, shown

NORTHS, SOUTHS, NOBODYS = "What does the north trade?", "Who guards the south?", "Who built it?"
TOKENS = (
    ("olga", "operator", []),
    ("ann", "user", ["north"]),
    ("sue", "user", ["south"]),
    ("both", "user", ["north", "south"]),
    ("nobody", "user", []),
)


@pytest.fixture
async def factory(tmp_path: pathlib.Path) -> AsyncIterator[FactoryProcess]:
    others = fake_services.FakeServices()
    await others.start()
    process = guarded(tmp_path, others, TOKENS)
    await process.start()
    yield process
    await process.close()
    await others.stop()


async def asked(factory: FactoryProcess, query: str, tenant: str) -> str:
    """The task that a question led to."""
    event = factory_pb2.CognitiveDissonance(
        event_id=f"event of {query}", query=query, confidence=0.1, tenant=tenant, detected_at_ms=1
    )
    found = await factory.stub.ReportDissonance(event, timeout=PATIENCE_S, metadata=shown("olga"))
    assert found.created, found.reason
    return str(found.task_id)


async def listed(factory: FactoryProcess, token: str, limit: int = 0) -> list[str]:
    request = factory_pb2.ListTasksRequest(limit=limit)
    found = await factory.stub.ListTasks(request, timeout=PATIENCE_S, metadata=shown(token))
    return [task.trigger_query for task in found.tasks]


async def test_tasks_of_other_tenants_are_not_listed_and_by_their_id_hold_no_words(
    factory: FactoryProcess,
) -> None:
    await asked(factory, NOBODYS, "")
    await asked(factory, NORTHS, "north")
    souths = await asked(factory, SOUTHS, "south")
    for token, sees in (
        ("olga", {NOBODYS, NORTHS, SOUTHS}),
        ("both", {NOBODYS, NORTHS, SOUTHS}),
        ("ann", {NOBODYS, NORTHS}),
        ("sue", {NOBODYS, SOUTHS}),
        ("nobody", {NOBODYS}),
    ):
        assert set(await listed(factory, token)) == sees, token
    # What others may not see does not fill the list.
    assert await listed(factory, "nobody", limit=1) == [NOBODYS]

    async def seen(token: str) -> list[types_pb2.TrainingTask]:
        metadata, stub = shown(token), factory.stub
        by_id = factory_pb2.GetTaskRequest(id=souths)
        by_event = factory_pb2.FindTaskRequest(event_id=f"event of {SOUTHS}")
        watched = stub.WatchTask(factory_pb2.WatchTaskRequest(id=souths), metadata=metadata)
        found = [
            await stub.GetTask(by_id, metadata=metadata),
            await stub.FindTask(by_event, metadata=metadata),
            await anext(aiter(watched)),
        ]
        watched.cancel()
        return found

    for task in await seen("sue"):
        assert (task.id, task.trigger_query, task.tenant) == (souths, SOUTHS, "south")
    for task in await seen("ann"):
        assert task.id == souths and task.created_at_ms and task.status
        assert SOUTHS not in str(task) and "south" not in str(task)
