"""The factory as a process of its own, killed and restarted, between stand-ins for the others."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator

import grpc
import pytest

from shared import errors
from shared.pb import cards_pb2, factory_pb2, types_pb2
from tests import fake_services
from tests.contract.factory_process import (
    ANSWER,
    PATIENCE_S,
    QUESTION,
    FactoryProcess,
    status,
    within,
)


@pytest.fixture
async def others() -> AsyncIterator[fake_services.FakeServices]:
    services = fake_services.FakeServices()
    services.distiller.answers[QUESTION] = ANSWER
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


async def test_gap_is_closed_when_every_service_answers(
    factory: FactoryProcess, others: fake_services.FakeServices
) -> None:
    others.store.cards.append(
        cards_pb2.CardRecord(name="zorblax-trade", digest="0" * 64, version="1.4.0")
    )
    others.distiller.spent = types_pb2.Spending(calls=1, tokens_in=210, tokens_out=90)
    response = await factory.report(QUESTION, "event-1")
    tasks = await factory.watched(response.task_id)
    last = tasks[-1]

    assert response.created
    assert last.spent == others.distiller.spent
    assert status(last) == "COMPLETED"
    expected = fake_services.ticket("card", f"card-{last.id}")
    assert last.card == f"zorblax-trade@{expected.digest}"
    assert last.domain == "trade"
    assert [time.stage for time in last.stage_times] == [
        "detect", "distil", "train", "prove", "publish", "confirm",
    ]  # fmt: skip
    assert others.store.cards[-1].signature_json == f"signed {last.id}"
    assert others.trainer.train.requests[0].version == "1.5.0"
    assert others.trainer.prove.requests[0].triggers[0].expected_answer == ANSWER
    assert list(others.store.datasets.finished) == [f"{last.id}:dataset"]
    assert all(request.no_learning for request in others.inference.requests)
    found = await factory.stub.FindTask(factory_pb2.FindTaskRequest(event_id="event-1"))
    assert found == last


async def test_one_task_is_made_when_a_question_comes_a_hundred_times_at_once(
    factory: FactoryProcess, others: fake_services.FakeServices
) -> None:
    others.distiller.distil.gate.shut()
    spellings = [QUESTION, "  what does ZORBLAX trade", "What does  Zorblax trade ?!"]
    responses = await asyncio.gather(
        *(factory.report(spellings[number % 3], f"event-{number}") for number in range(100))
    )
    others.distiller.distil.gate.open()

    assert len({response.task_id for response in responses}) == 1
    assert sum(response.created for response in responses) == 1
    listed = await factory.stub.ListTasks(factory_pb2.ListTasksRequest())
    assert len(listed.tasks) == 1
    again = await factory.report(QUESTION, "event-1")
    assert again.task_id == responses[0].task_id


@pytest.mark.parametrize("stage", ["distilling", "training", "proving", "publishing"])
async def test_task_completes_and_repeats_no_finished_step_when_factory_is_killed_while(
    stage: str, factory: FactoryProcess, others: fake_services.FakeServices
) -> None:
    doings = {
        "distilling": others.distiller.distil,
        "training": others.trainer.train,
        "proving": others.trainer.prove,
        "publishing": others.store.published,
    }
    doings[stage].gate.shut()
    task_id = (await factory.report(QUESTION, "event-1")).task_id
    await within(doings[stage].gate.reached.wait())
    await factory.kill()
    doings[stage].gate.open()
    await factory.start()
    same = await factory.report(QUESTION.upper(), "event-2")
    last = await factory.ended(task_id)

    assert same.task_id == task_id and not same.created
    assert status(last) == "COMPLETED"
    assert len(others.store.cards) == 1
    for name, done in doings.items():
        assert sum(done.finished.values()) == 1, name
        assert sum(done.asked.values()) == (2 if name == stage else 1), name


async def test_task_fails_with_reason_and_is_retried_when_the_teacher_is_back(
    factory: FactoryProcess, others: fake_services.FakeServices
) -> None:
    others.distiller.distil.error = errors.TeacherUnavailableError("no teacher could be asked")
    first = await factory.ended((await factory.report(QUESTION, "event-1")).task_id)
    others.distiller.distil.error = None
    request = factory_pb2.RetryTaskRequest(id=first.id, idempotency_key="again")
    second = await factory.stub.RetryTask(request)
    repeated = await factory.stub.RetryTask(request)
    last = await factory.ended(second.id)

    assert status(first) == "FAILED"
    assert first.error == "no teacher could be asked"
    assert second.id == repeated.id != first.id
    assert second.retry_of == first.id
    assert status(last) == "COMPLETED"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await factory.stub.RetryTask(factory_pb2.RetryTaskRequest(id=last.id))
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_reason_is_told_when_the_base_model_was_sure(
    factory: FactoryProcess, others: fake_services.FakeServices
) -> None:
    sure = types_pb2.AnswerSignals(mean_logprob=-0.01, mean_entropy=0.05, tokens=5)
    response = await factory.report(QUESTION, "event-1", signals=sure)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await factory.stub.FindTask(factory_pb2.FindTaskRequest(event_id="event-1", wait_s=60))

    assert (response.task_id, response.created) == ("", False)
    assert "seems sure of its answer" in response.reason
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert refused.value.details() == response.reason
    unsure = types_pb2.AnswerSignals(mean_logprob=-0.01, tokens=5, admits_ignorance=True)
    assert (await factory.report(QUESTION, "event-2", signals=unsure)).created
    doubtful = types_pb2.AnswerSignals(mean_logprob=-0.01, tokens=5, semantic_entropy=1.0)
    third = await factory.report("Who built the Tarnock mill?", "event-3", signals=doubtful)
    assert third.task_id and not third.reason


async def test_task_waits_over_its_budget_when_the_factory_restarts(
    others: fake_services.FakeServices, tmp_path: pathlib.Path
) -> None:
    factory = FactoryProcess(tmp_path, others, budget={"tenant_tasks_per_hour": 1})
    await factory.start()
    try:
        first = await factory.report(QUESTION, "event-1", tenant="acme")
        held = await factory.report("Who founded Tarnock?", "event-2", tenant="acme")
        assert status(await factory.ended(first.task_id)) == "COMPLETED"
        await factory.kill()
        await factory.start()
        task = await factory.stub.GetTask(factory_pb2.GetTaskRequest(id=held.task_id))
        other = await factory.report("Who founded Tarnock Hall?", "event-3", tenant="other")
        await factory.ended(other.task_id)
        still = await factory.stub.GetTask(factory_pb2.GetTaskRequest(id=held.task_id))
    finally:
        await factory.close()

    assert status(task) == status(still) == "PENDING"
    assert "tenant_tasks_per_hour of acme is 1" in task.detail
    assert (task.tenant, task.demand) == ("acme", 1)
    assert others.distiller.distil.asked[held.task_id] == 0


async def test_work_stops_when_a_task_is_cancelled(
    factory: FactoryProcess, others: fake_services.FakeServices
) -> None:
    others.trainer.train.gate.shut()
    task_id = (await factory.report(QUESTION, "event-1")).task_id
    await within(others.trainer.train.gate.reached.wait())
    cancelled = await factory.stub.CancelTask(factory_pb2.CancelTaskRequest(id=task_id))
    others.trainer.train.gate.open()
    others.distiller.skill_name = "next"
    # The next task takes the place of the cancelled one, at a concurrency of one.
    following = await factory.ended((await factory.report(QUESTION, "event-2")).task_id)

    assert status(cancelled) == "CANCELLED"
    assert others.distiller.cancelled[0] == task_id
    assert following.id != task_id
    assert status(following) == "COMPLETED"
    assert others.trainer.prove.asked[task_id] == 0
    assert "Traceback" not in factory.log()


async def test_watch_shows_states_and_progress_when_a_task_is_worked_on(
    factory: FactoryProcess, others: fake_services.FakeServices
) -> None:
    others.trainer.train.gate.shut()
    task_id = (await factory.report(QUESTION, "event-1")).task_id
    seen: list[types_pb2.TrainingTask] = []
    watch = factory.stub.WatchTask(factory_pb2.WatchTaskRequest(id=task_id), timeout=PATIENCE_S)
    async for task in watch:
        seen.append(task)
        if task.detail == "step 20 of 40":
            others.trainer.train.gate.open()

    halfway = next(task for task in seen if task.detail == "step 20 of 40")
    assert status(halfway) == "TRAINING"
    assert halfway.progress == 0.5
    states = list(dict.fromkeys(status(task) for task in seen))
    course = ["PENDING", "DISTILLING", "TRAINING", "EVALUATING", "PUBLISHING", "COMPLETED"]
    # A watch that begins late misses what was before it; the training waits for it.
    assert states == course[-len(states) :] and len(states) >= course.index("TRAINING") + 2


async def test_questions_are_learned_together_when_they_are_about_one_place(
    others: fake_services.FakeServices, tmp_path: pathlib.Path
) -> None:
    more = "Who founded Zorblax?"
    others.distiller.answers[more] = "Ada Quill"
    others.distiller.places["Zorblax"] = "zorblax.md#trade"
    others.distiller.distil.gate.shut()
    factory = FactoryProcess(tmp_path, others, gather_s=8.0)
    await factory.start()
    try:
        first = await factory.report(QUESTION, "event-1")
        second = await factory.report(more, "event-2")
        await within(others.distiller.distil.gate.reached.wait())
        late = await factory.report("Where is Zorblax?", "event-3")
        others.distiller.distil.gate.open()
        last = await factory.ended(first.task_id)
    finally:
        await factory.close()

    assert second.task_id == late.task_id == first.task_id
    assert list(last.other_queries) == [more]
    assert list(others.distiller.distil.requests[0].queries) == [QUESTION, more]
    assert {request.query for request in others.inference.requests} == {QUESTION, more}
    assert status(last) == "COMPLETED"


async def test_task_completes_when_the_trainer_was_away_for_a_moment(
    factory: FactoryProcess, others: fake_services.FakeServices
) -> None:
    others.trainer.train.gate.shut()
    task_id = (await factory.report(QUESTION, "event-1")).task_id
    await within(others.trainer.train.gate.reached.wait())
    await others.take_down("trainer")
    others.trainer.train.gate.open()
    await others.bring_up("trainer")
    last = await factory.ended(task_id)

    assert status(last) == "COMPLETED"
    assert others.trainer.train.asked[task_id] == 2
    assert others.trainer.train.finished[task_id] == 1


async def test_event_is_kept_when_the_distiller_is_down(
    factory: FactoryProcess, others: fake_services.FakeServices
) -> None:
    await others.take_down("distiller")
    response = await factory.report(QUESTION, "event-1")
    await others.bring_up("distiller")
    last = await factory.ended(response.task_id)

    assert status(last) == "COMPLETED"


async def test_more_is_tried_in_the_same_order_when_the_gate_refuses_drafts(
    factory: FactoryProcess, others: fake_services.FakeServices
) -> None:
    others.trainer.verdicts = [False, False, False, False, True]
    refused = await factory.ended((await factory.report(QUESTION, "event-1")).task_id)
    passed = await factory.ended((await factory.report(QUESTION, "event-2")).task_id)

    assert status(refused) == "FAILED"
    assert refused.error.count("held_out 1/4 (needs 50%)") == 3
    assert status(passed) == "COMPLETED"
    orders = [(order.seed, order.rank_factor) for order in others.trainer.train.requests]
    assert orders == [(1, 1), (2, 1), (3, 2), (1, 1), (2, 1)]
    enlarged = [one for one in others.distiller.distil.requests if one.of_task]
    assert [(one.of_task, list(one.weak)) for one in enlarged] == [
        (refused.id, ["What is it?"]),
        (passed.id, ["What is it?"]),
    ]


async def test_document_is_learned_when_a_person_teaches_it(factory: FactoryProcess) -> None:
    request = factory_pb2.TeachRequest(idempotency_key="k", document="zorblax.md", priority=5)
    task = await factory.stub.Teach(request)
    repeated = await factory.stub.Teach(request)
    last = await factory.ended(task.id)

    assert task.id == repeated.id
    assert task.priority == 5
    assert status(last) == "COMPLETED"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await factory.stub.Teach(factory_pb2.TeachRequest(topic="x", priority=6))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_task_goes_on_when_the_factory_was_stopped_in_good_order(
    factory: FactoryProcess, others: fake_services.FakeServices
) -> None:
    others.trainer.train.gate.shut()
    task_id = (await factory.report(QUESTION, "event-1")).task_id
    await within(others.trainer.train.gate.reached.wait())
    code = await factory.terminate()
    others.trainer.train.gate.open()
    await factory.start()
    last = await factory.ended(task_id)

    assert code == 0
    assert status(last) == "COMPLETED"
    assert "Traceback" not in factory.log()


async def test_second_factory_is_refused_when_the_port_is_taken(factory: FactoryProcess) -> None:
    code, words = await factory.second_one()

    assert code == 2
    assert factory.address in words
