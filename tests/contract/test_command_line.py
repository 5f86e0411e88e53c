"""`ask` and `teach` against services of the tests, over loopback."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.gateway import domain
from services.gateway.calls import peers
from services.gateway.command_line import asking, listing, operating, teaching
from shared import errors, terminal
from shared import settings as config
from shared.pb import (
    distiller_pb2,
    distiller_pb2_grpc,
    factory_pb2,
    factory_pb2_grpc,
    inference_pb2,
    inference_pb2_grpc,
    types_pb2,
)
from shared.rpc import client
from shared.rpc import server as rpc


class Node(inference_pb2_grpc.InferenceServicer):
    """Knows nothing until it has learned."""

    def __init__(self) -> None:
        self.learned = False
        self.event_id = "e1"

    async def Generate(
        self, request: inference_pb2.GenerateRequest, context: Any
    ) -> inference_pb2.GenerateResponse:
        if self.learned:
            return inference_pb2.GenerateResponse(answer="Ann.", card="ann@1", confidence=0.9)
        return inference_pb2.GenerateResponse(
            answer="I do not know.",
            confidence=0.25,
            dissonance=True,
            event_id=self.event_id,
        )


class Factory(factory_pb2_grpc.FactoryServicer):
    """One task, which ends as it is told to."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.end = types_pb2.COMPLETED
        self.taught: list[factory_pb2.TeachRequest] = []
        self.watched = 0
        self.reason = ""
        self.nights: list[str] = []

    async def FindTask(
        self, request: factory_pb2.FindTaskRequest, context: Any
    ) -> types_pb2.TrainingTask:
        if self.reason:
            raise errors.PreconditionError(self.reason)
        return types_pb2.TrainingTask(id="t1", status=types_pb2.PENDING)

    async def Teach(
        self, request: factory_pb2.TeachRequest, context: Any
    ) -> types_pb2.TrainingTask:
        self.taught.append(request)
        return types_pb2.TrainingTask(id="t1", status=types_pb2.PENDING)

    async def RunNightly(
        self, request: factory_pb2.RunNightlyRequest, context: Any
    ) -> factory_pb2.RunNightlyResponse:
        self.nights.append(request.idempotency_key)
        if len(self.nights) == 1:
            raise errors.UnavailableError("restarting")
        skill = factory_pb2.NightlySkill(task_ids=["t1", "t2"], domain="law", base="embedded")
        return factory_pb2.RunNightlyResponse(id="n", skills=[skill])

    async def ListTasks(
        self, request: factory_pb2.ListTasksRequest, context: Any
    ) -> factory_pb2.ListTasksResponse:
        return factory_pb2.ListTasksResponse(
            tasks=[
                types_pb2.TrainingTask(
                    id="t1",
                    status=types_pb2.PENDING,
                    spent=types_pb2.Spending(
                        calls=1, tokens_in=210, tokens_out=90, dollars=0.00111
                    ),
                )
            ]
        )

    async def WatchTask(
        self, request: factory_pb2.WatchTaskRequest, context: Any
    ) -> AsyncIterator[types_pb2.TrainingTask]:
        yield types_pb2.TrainingTask(id="t1", status=types_pb2.TRAINING, progress=0.5)
        self.watched += 1
        if self.watched == 1:
            return  # The first watch breaks off, as it does when the factory restarts.
        self.node.learned = self.end == types_pb2.COMPLETED
        error = "" if self.node.learned else "the teacher is ill"
        yield types_pb2.TrainingTask(id="t1", status=self.end, error=error, card="ann@1")


class Distiller(distiller_pb2_grpc.DistillerServicer):
    """Takes documents."""

    def __init__(self) -> None:
        self.documents: dict[str, str | bytes] = {}

    async def GetDistillerStatus(
        self, request: distiller_pb2.GetDistillerStatusRequest, context: Any
    ) -> distiller_pb2.DistillerStatus:
        return distiller_pb2.DistillerStatus(
            teachers=[
                distiller_pb2.Teacher(name="a", circuit="open", reason="no credit", open_for_s=90)
            ],
            today=types_pb2.Spending(calls=2, tokens_in=1000, tokens_out=200, dollars=0.5),
        )

    async def AddDocument(
        self, request: distiller_pb2.AddDocumentRequest, context: Any
    ) -> distiller_pb2.AddDocumentResponse:
        self.documents[request.name] = request.pdf or request.text
        return distiller_pb2.AddDocumentResponse(name=request.name)


class Services:
    """All three behind one port."""

    def __init__(self) -> None:
        self.node, self.distiller = Node(), Distiller()  # type: ignore[abstract]
        self.factory = Factory(self.node)  # type: ignore[abstract]
        self.server = rpc.Server([self.add_to], "127.0.0.1:0")

    def add_to(self, server: Any) -> str:
        inference_pb2_grpc.add_InferenceServicer_to_server(self.node, server)
        factory_pb2_grpc.add_FactoryServicer_to_server(self.factory, server)
        distiller_pb2_grpc.add_DistillerServicer_to_server(self.distiller, server)
        return inference_pb2.DESCRIPTOR.services_by_name["Inference"].full_name


@pytest.fixture
async def services(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> AsyncIterator[Services]:
    found = Services()
    await found.server.start()
    for name in ("INFERENCE", "FACTORY", "DISTILLER"):
        monkeypatch.setenv(f"SKILLMESH__{name}__ADDRESS", f"127.0.0.1:{found.server.port}")
    monkeypatch.setenv("SKILLMESH__CLUSTER__STATE_DIR", str(tmp_path / "state"))
    yield found
    await found.server.stop()


async def test_ask_names_the_task_when_a_gap_is_found(
    services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    await asking.ask("Who?", wait=False, as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "answer": "I do not know.",
        "card": "",
        "confidence": 0.25,
        "rewritten_query": None,
        "dissonance": True,
        "task_id": "t1",
    }


async def test_ask_has_no_task_when_the_factory_is_away(
    services: Services, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKILLMESH__FACTORY__ADDRESS", "127.0.0.1:1")
    await asking.ask("Who?", wait=False, as_json=True)
    assert json.loads(capsys.readouterr().out)["task_id"] is None


async def test_ask_asks_again_when_it_waited(
    services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    await asking.ask("Who?", wait=True, as_json=True)
    printed = capsys.readouterr()
    answer = json.loads(printed.out)
    assert (answer["answer"], answer["card"], answer["task_id"]) == ("Ann.", "ann@1", "t1")
    assert services.factory.watched == 2


async def test_ask_says_why_when_there_is_nothing_to_learn(
    services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    services.factory.reason = "nothing to learn: the base model seems sure of its answer"
    await asking.ask("Who?", wait=True, as_json=False)
    assert services.factory.reason in " ".join(capsys.readouterr().out.split())
    await asking.ask("Who?", wait=True, as_json=True)
    printed = capsys.readouterr().out
    answer = json.loads(printed[printed.index("{\n") :])  # The services log there, too.
    assert (answer["task_id"], answer["not_learned"]) == (None, services.factory.reason)


async def test_ask_says_where_to_look_when_it_is_not_decided_yet_what_is_learned(
    services: Services, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKILLMESH__FACTORY__ADDRESS", "127.0.0.1:1")
    await asking.ask("Who?", wait=False, as_json=False)
    told = capsys.readouterr().out
    assert "I do not know." in told and "`make tasks` shows it" in told
    assert "answered by the bare base model, confidence that a card fits 0.25" in told


async def test_ask_says_so_when_learning_is_switched_off(
    services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    services.node.event_id = ""
    await asking.ask("Who?", wait=True, as_json=True)
    assert "learn_from_questions" in json.loads(capsys.readouterr().out)["not_learned"]


async def test_ask_fails_with_the_reason_when_learning_failed(
    services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    services.factory.end = types_pb2.FAILED
    with pytest.raises(terminal.FailedError, match="t1 is FAILED: the teacher is ill"):
        await asking.ask("Who?", wait=True, as_json=True)
    assert json.loads(capsys.readouterr().out)["answer"] == "I do not know."


async def test_teach_sends_the_document_when_a_path_is_given(
    services: Services, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ann.md"
    path.write_text("Ann is wise.")
    await teaching.teach("", str(path), wait=True, as_json=True)
    assert services.distiller.documents == {"ann.md": "Ann is wise."}
    assert services.factory.taught[0].document == "ann.md"
    assert services.factory.taught[0].idempotency_key
    assert json.loads(capsys.readouterr().out)["status"] == "COMPLETED"


async def test_teach_sends_the_bytes_when_the_document_is_a_pdf(
    services: Services, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "ann.PDF"
    path.write_bytes(b"%PDF-1.7\xff")
    await teaching.teach("", str(path), wait=False, as_json=True)
    assert services.distiller.documents == {"ann.PDF": b"%PDF-1.7\xff"}
    path.write_bytes(bytes(client.LARGEST_FILE_BYTES + 1))
    with pytest.raises(terminal.UsageError, match="knowledge folder"):
        await teaching.teach("", str(path), wait=False, as_json=True)


@pytest.mark.parametrize(("topic", "document"), [("", ""), ("Ann", "ann.md"), ("", "none.md")])
async def test_teach_is_refused_when_it_is_unclear_what(topic: str, document: str) -> None:
    with pytest.raises(terminal.UsageError):
        await teaching.teach(topic, document, wait=False, as_json=False)


async def test_tasks_are_a_list_when_printed_as_json(
    services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    await listing.tasks(as_json=True)
    assert [task["status"] for task in json.loads(capsys.readouterr().out)] == ["PENDING"]


async def test_night_runs_once_and_its_skills_are_listed_when_the_factory_was_restarting(
    services: Services, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "while_restarting", patiently)
    monkeypatch.setenv("COLUMNS", "200")
    await listing.nightly(as_json=False)
    assert re.search(r"t1 +│ t2 +│ law +│ the first one", capsys.readouterr().out)
    first, again = services.factory.nights
    assert first == again
    await listing.nightly(as_json=True)
    assert json.loads(capsys.readouterr().out)[0]["task_ids"] == ["t1", "t2"]
    assert services.factory.nights[2] != first


async def patiently(attempt: Any, alive: Any) -> Any:
    return await client.retried(attempt, 60)


async def test_costs_of_teachers_are_listed_when_a_task_asked_them(
    services: Services, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await listing.tasks(as_json=True)
    (task,) = json.loads(capsys.readouterr().out)
    assert task["spent"]["tokens_in"] == 210
    monkeypatch.setenv("COLUMNS", "200")
    await listing.tasks(as_json=False)
    assert "1 call, 300 tokens, $0.0011" in capsys.readouterr().out


async def test_teachers_and_todays_costs_are_known_when_the_distiller_answers(
    services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    async with peers.connected(config.load()) as connected:
        found = await connected.distiller.teachers()
    assert found.chain == (domain.Teacher("a", "open", "no credit", 90.0),)
    operating.show_teachers(dataclasses.asdict(found))
    printed = capsys.readouterr().out
    assert "teacher: a is left alone for 90 s: no credit" in printed
    assert "teachers today: 2 calls, 1,200 tokens, $0.5000" in printed


async def test_says_make_up_when_nothing_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("SKILLMESH__INFERENCE__ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("SKILLMESH__CLUSTER__STATE_DIR", str(tmp_path))
    with pytest.raises(errors.UnavailableError, match="make up"):
        await asking.ask("Who?", wait=False, as_json=True)
