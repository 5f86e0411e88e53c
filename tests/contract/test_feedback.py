"""What users say of answers, told to a factory process that is killed at exact points."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest

from shared.pb import cards_pb2, factory_pb2, types_pb2
from tests import fake_services
from tests.contract import killed_at
from tests.contract.factory_process import (
    ANSWER,
    PATIENCE_S,
    QUESTION,
    FactoryProcess,
    guarded,
    shown,
    status,
    within,
)

Outcome = factory_pb2.GiveAnswerFeedbackResponse
RIGHT = "red salt"


@pytest.fixture
async def others() -> AsyncIterator[fake_services.FakeServices]:
    services = fake_services.FakeServices()
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


async def tell(
    factory: FactoryProcess, key: str, token: str = "", **fields: Any
) -> factory_pb2.GiveAnswerFeedbackResponse:
    values = {"question": QUESTION, "answer": ANSWER, "correction": RIGHT, **fields}
    request = factory_pb2.GiveAnswerFeedbackRequest(idempotency_key=key, **values)
    outcome = await factory.stub.GiveFeedback(request, timeout=PATIENCE_S, metadata=shown(token))
    assert isinstance(outcome, Outcome)
    return outcome


async def listed(factory: FactoryProcess) -> Sequence[types_pb2.TrainingTask]:
    return (await factory.stub.ListTasks(factory_pb2.ListTasksRequest())).tasks


async def counts(factory: FactoryProcess, card: str) -> tuple[int, int]:
    found = await factory.stub.GetCardFeedback(factory_pb2.GetCardFeedbackRequest(card=card))
    return found.right, found.wrong


async def test_the_next_version_of_the_card_learns_it_when_an_answer_is_corrected(
    factory: FactoryProcess, others: fake_services.FakeServices
) -> None:
    others.distiller.answers[QUESTION] = ANSWER
    first = await factory.ended((await factory.report(QUESTION, "event-1")).task_id)
    assert status(first) == "COMPLETED"
    given = await tell(factory, "key-1", card=first.card)
    last = await factory.ended(given.task_id)

    assert (status(last), given.reason) == ("COMPLETED", "")
    asked = others.distiller.distil.requests[-1]
    [told] = asked.corrections
    assert (told.query, told.expected_answer, told.wrong_answer) == (QUESTION, RIGHT, ANSWER)
    assert (asked.follows.skill_name, asked.follows.domain) == ("zorblax-trade", "trade")
    assert asked.follows.dataset_digest == others.trainer.prove.requests[0].dataset.digest
    proved = others.trainer.prove.requests[-1]
    assert proved.triggers[0].expected_answer == RIGHT
    assert proved.previous.card_digest == first.card.partition("@")[2]
    assert [one.version for one in others.store.cards] == ["1.0.0", "1.1.0"]
    assert await counts(factory, first.card) == await counts(factory, "zorblax-trade") == (0, 1)


async def test_one_task_comes_of_it_when_the_same_is_said_again_after_a_restart(
    factory: FactoryProcess, others: fake_services.FakeServices
) -> None:
    first = await tell(factory, "key-1")
    await factory.ended(first.task_id)
    right = await tell(factory, "key-2", is_right=True, correction="")
    await factory.kill()
    await factory.start()

    assert await tell(factory, "key-1") == first
    assert await tell(factory, "key-2", is_right=True, correction="") == right
    assert right.task_id == "" and "is right" in right.reason
    assert len(await listed(factory)) == 1
    assert await counts(factory, "") == (1, 1)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tell(factory, "key-1", correction="green salt")
    assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS


@pytest.mark.parametrize(
    ("stage", "kept"),
    [
        ("training_tasks-inserted", False),
        ("feedback-inserted", False),
        ("before-feedback-committed", False),
        ("feedback-committed", True),
    ],
)
async def test_feedback_and_its_task_are_both_kept_or_neither_when_the_factory_is_killed(
    stage: str, kept: bool, others: fake_services.FakeServices, tmp_path: pathlib.Path
) -> None:
    armed = tmp_path / "armed"
    through = (killed_at.MODULE, str(armed))
    factory = FactoryProcess(tmp_path, others, through=through)
    try:
        await factory.start()
        armed.write_text(stage)
        with pytest.raises(grpc.aio.AioRpcError) as lost:
            await within(tell(factory, "key-1"))
        assert lost.value.code() is grpc.StatusCode.UNAVAILABLE
        await factory.kill()
        armed.unlink()
        await factory.start()
        before = list(await listed(factory))
        said = await counts(factory, "")
        again = await tell(factory, "key-1")
        last = await factory.ended(again.task_id)
        after = await listed(factory)
    finally:
        await factory.close()

    assert said == (0, int(kept)) and [task.id for task in before] == [again.task_id] * kept
    assert status(last) == "COMPLETED" and len(after) == 1
    assert [one.expected_answer for one in others.distiller.distil.requests[0].corrections] == [
        RIGHT
    ]


async def test_corrections_are_learned_together_when_they_come_while_a_task_gathers(
    others: fake_services.FakeServices, tmp_path: pathlib.Path
) -> None:
    others.distiller.answers["Who founded Zorblax?"] = "Ada Quill"
    others.distiller.places["Zorblax"] = "zorblax.md"
    factory = FactoryProcess(tmp_path, others, gather_s=8.0)
    await factory.start()
    try:
        asked = await factory.report("Who founded Zorblax?", "event-1")
        given = [
            await tell(factory, "key-1"),
            await tell(factory, "key-2", question="When was Zorblax sold?", correction="1688"),
            await tell(factory, "key-3", correction="green salt"),
        ]
        last = await factory.ended(asked.task_id)
    finally:
        await factory.close()

    assert {one.task_id for one in given} == {asked.task_id}
    assert status(last) == "COMPLETED" and last.demand == 4
    [request] = others.distiller.distil.requests
    told = {one.query: one.expected_answer for one in request.corrections}
    assert told == {QUESTION: "green salt", "When was Zorblax sold?": "1688"}
    assert list(request.queries) == ["Who founded Zorblax?", *told]
    assert not request.HasField("follows")


@pytest.mark.parametrize(
    ("key", "fields", "code"),
    [
        ("", {}, grpc.StatusCode.INVALID_ARGUMENT),
        ("k", {"question": ""}, grpc.StatusCode.INVALID_ARGUMENT),
        ("k", {"correction": "w" * 401}, grpc.StatusCode.INVALID_ARGUMENT),
        ("k", {"is_right": True}, grpc.StatusCode.INVALID_ARGUMENT),
        ("k", {"card": "zorblax"}, grpc.StatusCode.INVALID_ARGUMENT),
        ("k", {"card": "zorblax@" + "0" * 64}, grpc.StatusCode.NOT_FOUND),
    ],
)
async def test_nothing_is_kept_when_feedback_is_wrong(
    key: str, fields: dict[str, Any], code: grpc.StatusCode, factory: FactoryProcess
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tell(factory, key, **fields)
    assert refused.value.code() is code
    assert await counts(factory, fields.get("card", "")) == (0, 0)
    assert len(await listed(factory)) == 0


async def test_only_teachers_and_operators_may_correct_and_only_what_they_may_see(
    others: fake_services.FakeServices, tmp_path: pathlib.Path
) -> None:
    record = cards_pb2.CardRecord(name="souths", digest="5" * 64, tenants=["south"])
    others.store.cards.append(record)
    tokens = (
        ("ann", "teacher", ["north"]),
        ("sue", "teacher", ["south"]),
        ("uwe", "user", ["north"]),
        ("olga", "operator", []),
    )
    factory = guarded(tmp_path, others, tokens)
    await factory.start()
    try:
        learned = await tell(factory, "k1", "ann")
        refused = []
        for token, card in (("uwe", ""), ("ann", "souths@" + "5" * 64)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await tell(factory, "k2", token, card=card)
            refused.append(caught.value.code())
        theirs = await tell(factory, "k2", "sue", card="souths@" + "5" * 64)
        request = factory_pb2.GetTaskRequest(id=learned.task_id)
        task = await factory.stub.GetTask(request, metadata=shown("uwe"))
    finally:
        await factory.close()

    assert refused == [grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND]
    assert task.tenant == "north"
    assert theirs.task_id == "" and "for south alone" in theirs.reason
