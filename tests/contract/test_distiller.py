"""The distiller's service over loopback, with a teacher that counts its questions."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import pathlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest

from services.distiller import (
    correcting,
    delivery,
    distiller,
    embed_client,
    journal,
    knowledge,
    service,
    spending,
)
from services.distiller.providers import base, failover, failures
from shared import errors
from shared import settings as config
from shared.flight import datasets
from shared.pb import distiller_pb2, distiller_pb2_grpc, router_pb2, router_pb2_grpc
from shared.rpc import client, runs
from shared.rpc import server as rpc_server
from tests.unit.distiller import fakes

PAIRS = [
    fakes.pair("How long is it?", "412 m", *(f"Length, wording {at}?" for at in range(5))),
    fakes.pair("Who built it?", "Ida Kroll"),
]
REQUEST = distiller_pb2.DistilRequest(task_id="t1", queries=["How long is it?", "What colour?"])


class _Store:
    """Keeps datasets in memory."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []

    async def put(self, data: bytes) -> str:
        self.kept.append(data)
        return datasets.digest(data)

    async def get(self, digest: str) -> bytes:
        return next(data for data in self.kept if datasets.digest(data) == digest)


class _SlowTeacher(fakes.Teacher):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__(PAIRS)
        self.called = asyncio.Event()
        self.go_on = asyncio.Event()

    async def generate_qa(self, request: base.QARequest) -> list[datasets.QAPair]:
        self.called.set()
        await self.go_on.wait()
        return await super().generate_qa(request)


@contextlib.asynccontextmanager
async def _served(
    teacher: base.CloudProvider,
    folder: pathlib.Path,
    store: _Store,
    ledger: spending.Ledger | None = None,
) -> AsyncIterator[distiller_pb2_grpc.DistillerStub]:
    documents = folder / "knowledge"
    documents.mkdir(exist_ok=True)
    kept, settings = journal.Journal(folder / "tasks"), config.Distiller(judge="none")
    cloud = distiller.CloudDistiller(teacher, kept, settings)
    corrects = correcting.Corrector(cloud, teacher, kept, settings, store.get)
    active = runs.Runs[service.Delivered]()
    work = delivery.Delivery(corrects, store.put).work
    servicer = service.DistillerService(
        active,
        work,
        teacher,
        knowledge.KnowledgeFolder(documents),
        ledger or fakes.ledger(),
        fakes.no_code_bases(folder),
    )
    server = rpc_server.Server([servicer.add_to], "127.0.0.1:0")
    await server.start()
    channel = client.channel(f"127.0.0.1:{server.port}")
    try:
        yield distiller_pb2_grpc.DistillerStub(channel)
    finally:
        await channel.close(None)
        await active.close()
        await server.stop()


async def _distil(
    stub: Any,
    on_detail: Callable[[str], None] = lambda detail: None,
    request: distiller_pb2.DistilRequest = REQUEST,
) -> distiller_pb2.DistilResult:
    async def note(update: distiller_pb2.DistilUpdate) -> None:
        on_detail(update.detail)

    last = await client.last_of_stream(stub.Distil, request, note, 120.0)
    assert last.HasField("result")
    result: distiller_pb2.DistilResult = last.result
    return result


async def test_counts_of_rejected_pairs_arrive_when_some_are_unfit(tmp_path: pathlib.Path) -> None:
    teacher = fakes.Teacher([*PAIRS, fakes.pair("And?", ""), fakes.pair("So?", "x " * 300)])
    async with _served(teacher, tmp_path, _Store()) as stub:
        result = await _distil(stub)
    assert dict(result.rejected) == {"shape": 1, "length": 1}


def _set(event: asyncio.Event, detail: str) -> None:
    event.set()


async def test_result_names_the_dataset_when_the_teacher_answers(tmp_path: pathlib.Path) -> None:
    store, seen = _Store(), list[str]()
    async with _served(fakes.Teacher(PAIRS, title="The bridge"), tmp_path, store) as stub:
        result = await _distil(stub, seen.append)
    (data,) = store.kept
    pairs = datasets.from_bytes(data)
    assert result.dataset.digest == datasets.digest(data)
    assert (result.dataset.kind, result.dataset.size_bytes) == ("dataset", len(data))
    assert (result.skill_name, result.teacher) == ("the-bridge", "fake")
    assert (result.facts, result.questions, result.held_out) == (2, 6, 1)
    assert sum(len(pair.held_out) for pair in pairs) == 1
    assert [(one.query, one.expected_answer) for one in result.triggers] == [
        ("How long is it?", "412 m")
    ]
    assert list(result.unanswered) == ["What colour?"]
    assert seen[-1] == "distilled"


async def test_a_cards_dataset_is_corrected_when_people_say_what_is_right(
    tmp_path: pathlib.Path,
) -> None:
    store, teacher = _Store(), fakes.Teacher(PAIRS, title="The bridge")
    async with _served(teacher, tmp_path, store) as stub:
        before = await _distil(stub)
        told = distiller_pb2.Correction(
            query="How long is it?", expected_answer="498 m", wrong_answer="412 m"
        )
        follows = distiller_pb2.Followed(
            skill_name="the-bridge", domain="Bridges", dataset_digest=before.dataset.digest
        )
        request = distiller_pb2.DistilRequest(
            task_id="t2", queries=[told.query], corrections=[told], follows=follows
        )
        result = await _distil(stub, request=request)
        assert await _distil(stub, request=request) == result
        request.task_id, request.follows.skill_name = "t3", "../the-bridge"
        with pytest.raises(errors.InvalidInputError, match="no name of a card"):
            await _distil(stub, request=request)
    assert (result.skill_name, result.domain) == ("the-bridge", "Bridges")
    assert [one.expected_answer for one in result.triggers] == ["498 m"]
    answers = {one.question: one.answer for one in datasets.from_bytes(store.kept[1])}
    assert answers == {"How long is it?": "498 m", "Who built it?": "Ida Kroll"}


async def test_status_and_costs_are_told_when_the_teacher_was_asked(
    tmp_path: pathlib.Path,
) -> None:
    down = fakes.Teacher([], "down", failures.BarredError("bad key"))
    chain = failover.Failover([down, fakes.Teacher(PAIRS)], lambda: 0.0)
    ledger = fakes.ledger()
    order = spending.Order("t1", "p", "m", False, "c", spending.Usage(10, 20, True))
    async with _served(chain, tmp_path, _Store(), ledger) as stub:
        await _distil(stub)
        ledger.open(order)
        status = await stub.GetDistillerStatus(distiller_pb2.GetDistillerStatusRequest())
        task = await stub.GetSpending(distiller_pb2.GetSpendingRequest(task_id="t1"))
        other = await stub.GetSpending(distiller_pb2.GetSpendingRequest(task_id="t2"))
    assert [(one.name, one.circuit, one.reason) for one in status.teachers] == [
        ("down", "open", "bad key"),
        ("fake", "closed", ""),
    ]
    assert status.teachers[0].open_for_s == 900.0
    assert status.today == task
    assert (task.calls, task.tokens_in, task.unpriced_calls, task.estimated_calls) == (1, 10, 1, 1)
    assert other.calls == 0


async def test_teacher_is_asked_once_when_a_task_is_asked_twice(tmp_path: pathlib.Path) -> None:
    teacher, store = fakes.Teacher(PAIRS), _Store()
    async with _served(teacher, tmp_path, store) as stub:
        assert await _distil(stub) == await _distil(stub)
    assert len(teacher.asked) == 1


async def test_teacher_is_not_asked_again_when_the_service_was_restarted(
    tmp_path: pathlib.Path,
) -> None:
    store = _Store()
    async with _served(fakes.Teacher(PAIRS), tmp_path, store) as stub:
        first = await _distil(stub)
    other = fakes.Teacher([])
    async with _served(other, tmp_path, store) as stub:
        assert await _distil(stub) == first
    assert other.asked == []
    # The dataset is put again: the store may have lost what nobody committed.
    assert store.kept[0] == store.kept[1]


async def test_callers_share_a_run_when_they_ask_for_the_same_task(
    tmp_path: pathlib.Path,
) -> None:
    teacher, store = _SlowTeacher(), _Store()
    async with _served(teacher, tmp_path, store) as stub:
        gone = asyncio.create_task(_distil(stub))
        await teacher.called.wait()
        gone.cancel()
        await asyncio.wait([gone])
        attached = [asyncio.Event(), asyncio.Event()]
        others = [
            asyncio.create_task(_distil(stub, functools.partial(_set, event))) for event in attached
        ]
        for event in attached:
            await event.wait()
        teacher.go_on.set()
        first, second = await asyncio.gather(*others)
    assert first == second
    assert (len(teacher.asked), len(store.kept)) == (1, 1)


async def test_teacher_is_asked_no_more_when_the_distillation_is_cancelled(
    tmp_path: pathlib.Path,
) -> None:
    teacher, store = _SlowTeacher(), _Store()
    request = distiller_pb2.CancelDistilRequest(task_ids=["t1", "nobody"])
    async with _served(teacher, tmp_path, store) as stub:
        asking = asyncio.create_task(_distil(stub))
        await teacher.called.wait()
        await client.call(stub.CancelDistil, request)
        teacher.go_on.set()
        with pytest.raises(errors.UnavailableError, match="was ended"):
            await asking
    assert (teacher.asked, store.kept) == ([], [])


async def test_caller_may_ask_again_when_the_service_stops_in_the_middle(
    tmp_path: pathlib.Path,
) -> None:
    teacher = _SlowTeacher()
    cloud = distiller.CloudDistiller(
        teacher, journal.Journal(tmp_path), config.Distiller(judge="none")
    )
    active = runs.Runs[service.Delivered]()
    work = delivery.Delivery(cloud, _Store().put).work
    server = rpc_server.Server(
        [
            service.DistillerService(
                active,
                work,
                teacher,
                knowledge.KnowledgeFolder(tmp_path),
                fakes.ledger(),
                fakes.no_code_bases(tmp_path),
            ).add_to
        ],
        "127.0.0.1:0",
    )
    await server.start()
    async with client.channel(f"127.0.0.1:{server.port}") as channel:
        asking = asyncio.create_task(_distil(distiller_pb2_grpc.DistillerStub(channel)))
        await teacher.called.wait()
        await active.close()
        with pytest.raises(errors.UnavailableError, match="ask again"):
            await asking
    await server.stop()


async def test_error_arrives_typed_when_the_teacher_fails(tmp_path: pathlib.Path) -> None:
    teacher = fakes.Teacher([], error=errors.TeacherUnavailableError("out of quota"))
    async with _served(teacher, tmp_path, _Store()) as stub:
        with pytest.raises(errors.TeacherUnavailableError, match="out of quota"):
            await _distil(stub)
        teacher.error, teacher.pairs = None, PAIRS
        assert (await _distil(stub)).facts == 2


async def test_nothing_is_located_when_the_teacher_groups_nothing(tmp_path: pathlib.Path) -> None:
    async with _served(fakes.Teacher([]), tmp_path, _Store()) as stub:
        request = distiller_pb2.LocateRequest(queries=["a?", "b?"])
        response = await client.call(stub.Locate, request)
    assert [one.topic_key for one in response.locations] == ["", ""]


async def test_document_lies_in_the_folder_when_it_was_added(tmp_path: pathlib.Path) -> None:
    async with _served(fakes.Teacher([]), tmp_path, _Store()) as stub:
        request = distiller_pb2.AddDocumentRequest(name="bridge.md", text="It is 412 m long.")
        response = await client.call(stub.AddDocument, request)
        assert (tmp_path / "knowledge" / "bridge.md").read_text() == "It is 412 m long."
        assert len(response.digest) == 64
        for name in ("../bridge.md", "bridge.exe", ""):
            bad = distiller_pb2.AddDocumentRequest(name=name, text="x")
            with pytest.raises(errors.InvalidInputError, match="plain file name"):
                await client.call(stub.AddDocument, bad)
        bad = distiller_pb2.AddDocumentRequest(name="bridge.pdf", pdf=b"%PDF-1.7")
        with pytest.raises(errors.InvalidInputError, match="damaged"):
            await client.call(stub.AddDocument, bad)
    assert [path.name for path in (tmp_path / "knowledge").iterdir()] == ["bridge.md"]


class _Router(router_pb2_grpc.RouterServicer):
    """Embeds a text as its number; is away for the first call."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    async def Embed(
        self, request: router_pb2.EmbedRequest, context: Any
    ) -> router_pb2.EmbedResponse:
        self.batches.append(len(request.texts))
        if len(self.batches) == 1:
            raise errors.UnavailableError("starting")
        values = np.array([[float(text), 0.5] for text in request.texts], dtype="<f4")
        return router_pb2.EmbedResponse(dimension=2, vectors=values.tobytes(), embedder_id="fake")

    async def Route(self, request: router_pb2.RouteRequest, context: Any) -> Any:
        raise NotImplementedError

    async def GetRouterStatus(
        self, request: router_pb2.GetRouterStatusRequest, context: Any
    ) -> Any:
        raise NotImplementedError


async def test_texts_go_in_batches_when_there_are_many() -> None:
    router = _Router()

    def add(server: Any) -> str:
        router_pb2_grpc.add_RouterServicer_to_server(router, server)
        return "skillmesh.v1.Router"

    server = rpc_server.Server([add], "127.0.0.1:0")
    await server.start()
    async with client.channel(f"127.0.0.1:{server.port}") as channel:
        embedder = embed_client.RouterEmbedder(channel)
        vectors_TD = await embedder.embed([str(at) for at in range(300)])
    await server.stop()
    assert router.batches == [256, 256, 44]
    assert np.array_equal(vectors_TD[:, 0], np.arange(300, dtype=np.float32))
