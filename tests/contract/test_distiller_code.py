"""Repositories over the distiller's service: what may be read, what is told, what is kept."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import pathlib
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.distiller import (
    code_bases,
    code_lessons,
)
from services.distiller.codebase import generator
from services.distiller.codebase.lessons import journal as lessons_journal
from shared import errors
from shared import settings as config
from shared.flight import samples
from shared.pb import distiller_pb2
from shared.rpc import client
from tests.contract import asked_teachers, code_distillers, teacher_server
from tests.unit.distiller import fakes


@pytest.fixture
async def served(tmp_path: pathlib.Path) -> AsyncIterator[code_distillers.Distiller]:
    async with code_distillers.serving(code_distillers.Distiller(tmp_path), tmp_path) as made:
        yield made


async def test_samples_are_delivered_when_a_linked_repository_is_read(
    served: code_distillers.Distiller, tmp_path: pathlib.Path
) -> None:
    path, _ = code_distillers.repository(tmp_path)
    served.link(path)
    result, told = await served.distil()
    assert served.teacher.asked == [("t1", served.folder / "tidal")]
    [data] = served.uploaded
    assert samples.from_bytes(data) == list(code_distillers.MADE)
    assert (result.dataset.kind, result.dataset.size_bytes) == ("samples", len(data))
    assert result.dataset.digest == hashlib.sha256(data).hexdigest()
    assert (result.skill_name, result.domain) == ("specialist-tidal", "code")
    assert (result.teacher, result.facts, result.questions) == ("repository", 3, 3)
    assert (result.held_out, list(result.triggers)) == (1, [])
    found = result.code_base
    assert (found.commit_id, found.licence, found.files, found.lines) == (
        fakes.COMMIT, "MIT", 2, 40,
    )  # fmt: skip
    assert dict(found.samples) == {"complete": 2, "write": 1}
    assert (dict(found.removed), dict(found.skipped)) == ({"AWS Access Key": 1}, {"binary": 2})
    assert dict(found.rejected) == {"does not parse": 4}
    assert found.probe == "before the cursor"
    assert (pathlib.Path(found.folder) / "samples.arrow").read_bytes() == data
    assert told[-1] == "distilled"


async def test_finished_task_is_not_made_again_when_the_distiller_was_restarted(
    served: code_distillers.Distiller, tmp_path: pathlib.Path
) -> None:
    served.link(code_distillers.repository(tmp_path)[0])
    first, _ = await served.distil()
    (served.folder / "tidal").unlink()
    again, _ = await served.distil()
    other = code_distillers.Distiller(tmp_path)
    async with code_distillers.serving(other, tmp_path):
        restarted, _ = await other.distil()
    assert first == again == restarted
    assert len(served.teacher.asked) == 1 and other.teacher.asked == []


async def test_samples_serve_a_retry_when_the_repository_is_where_it_was(
    served: code_distillers.Distiller, tmp_path: pathlib.Path
) -> None:
    path, commit = code_distillers.repository(tmp_path)
    served.link(path)
    served.teacher.commit_id = commit
    first, _ = await served.distil()
    retry = distiller_pb2.DistilRequest(task_id="t2", repository="tidal", retry_of=["t0", "t1"])
    again, _ = await served.distil(retry)
    assert again == first and len(served.teacher.asked) == 1
    # Under its own id it is found without the others.
    plain = distiller_pb2.DistilRequest(task_id="t2", repository="tidal")
    assert (await served.distil(plain))[0] == first and len(served.teacher.asked) == 1
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    empty = ("commit", "-q", "--allow-empty", "-m", "More")
    subprocess.run(["git", "-C", str(path), *who, *empty], check=True)
    moved = distiller_pb2.DistilRequest(task_id="t3", repository="tidal", retry_of=["t1"])
    await served.distil(moved)
    assert [task_id for task_id, _ in served.teacher.asked] == ["t1", "t3"]


async def test_retry_pays_for_no_answer_that_the_failed_task_had(
    served: code_distillers.Distiller, tmp_path: pathlib.Path
) -> None:
    served.link(code_distillers.repository(tmp_path, source=code_distillers.SOURCE)[0])
    answer = dict.fromkeys(("task", "test", "before", "change"), "")
    told = json.dumps(answer | {"explanation": "It halves the values that it is given."})
    async with teacher_server.TeacherServer(teacher_server.Step(told)) as server:
        teacher = asked_teachers.local_teacher(server.root, asked_teachers.terms())
        answers = lessons_journal.Journal(tmp_path / "tasks")
        settings = config.Codebase(held_out_share=0.0, teacher_definitions=2)
        lessons = code_lessons.CodeLessons(generator.DatasetGenerator(settings, teacher, answers))

        async def failing(*arguments: Any) -> code_bases.Lessons:
            await lessons.teach(*arguments)
            raise errors.BudgetError("the budget is spent")

        served.teacher.teach = failing  # type: ignore[method-assign]
        async with code_distillers.serving(served, tmp_path):
            with pytest.raises(errors.BudgetError):
                await served.distil()
        assert len(server.seen) == 2
        served.teacher.teach = lessons.teach  # type: ignore[method-assign]
        retry = distiller_pb2.DistilRequest(task_id="t2", repository="tidal", retry_of=["t1"])
        async with code_distillers.serving(served, tmp_path):
            await served.distil(retry)
        await teacher.aclose()
        assert len(server.seen) == 2
    assert {one.teacher for one in samples.from_bytes(served.uploaded[0])} >= {"local:tiny"}


async def test_task_is_made_again_when_its_kept_samples_are_damaged(
    served: code_distillers.Distiller, tmp_path: pathlib.Path
) -> None:
    served.link(code_distillers.repository(tmp_path)[0])
    first, _ = await served.distil()
    [kept] = (tmp_path / "state" / "code_bases").glob("*/samples.arrow")
    kept.write_bytes(kept.read_bytes()[:-40])
    again, _ = await served.distil()
    assert first == again and len(served.teacher.asked) == 2


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("tidal", errors.NotFoundError, r"may not be learned: .*make teach-repo path="),
        ("gone", errors.NotFoundError, r"is a link to .*nowhere, where no folder is"),
        ("../tidal", errors.InvalidInputError, "a name has lower-case letters"),
        ("..", errors.InvalidInputError, "a name has lower-case letters"),
        ("Tidal", errors.InvalidInputError, "a name has lower-case letters"),
        ("a/b", errors.InvalidInputError, "a name has lower-case letters"),
        ("x" * 53, errors.InvalidInputError, "at most 52 characters"),
    ],
)
async def test_repository_is_not_read_when_it_is_not_permitted(
    served: code_distillers.Distiller,
    tmp_path: pathlib.Path,
    name: str,
    kind: type[Exception],
    message: str,
) -> None:
    code_distillers.repository(tmp_path)
    served.link(tmp_path / "nowhere", "gone")
    with pytest.raises(kind, match=message):
        await served.distil(distiller_pb2.DistilRequest(task_id="t1", repository=name))
    assert served.teacher.asked == []


@pytest.mark.parametrize(
    "more",
    [{"queries": ["Who?"]}, {"topic": "tides"}, {"document": "a.md"}, {"of_task": "t0"}],
)
async def test_repository_is_refused_when_something_else_is_to_be_learned_with_it(
    served: code_distillers.Distiller, tmp_path: pathlib.Path, more: dict[str, Any]
) -> None:
    served.link(code_distillers.repository(tmp_path)[0])
    request = distiller_pb2.DistilRequest(task_id="t1", repository="tidal", **more)
    with pytest.raises(errors.InvalidInputError, match="alone"):
        await served.distil(request)
    with pytest.raises(errors.InvalidInputError, match="task_id"):
        await served.distil(distiller_pb2.DistilRequest(repository="tidal"))


async def test_reason_arrives_when_a_repository_teaches_nothing(
    served: code_distillers.Distiller, tmp_path: pathlib.Path
) -> None:
    served.link(code_distillers.repository(tmp_path)[0])
    served.teacher.made = ()
    with pytest.raises(errors.PreconditionError, match=r"nothing to teach: .* 2 binary"):
        await served.distil()
    served.teacher.made = code_distillers.MADE
    assert (await served.distil())[0].questions == 3


async def test_reading_ends_when_the_task_is_cancelled(
    served: code_distillers.Distiller, tmp_path: pathlib.Path
) -> None:
    served.link(code_distillers.repository(tmp_path)[0])
    reading, ended = asyncio.Event(), asyncio.Event()
    teach = served.teacher.teach

    async def slow(*arguments: Any) -> code_bases.Lessons:
        reading.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return await teach(*arguments)

    served.teacher.teach = slow  # type: ignore[method-assign]
    async with code_distillers.serving(served, tmp_path):
        asking = asyncio.create_task(served.distil())
        await reading.wait()
        request = distiller_pb2.CancelDistilRequest(task_ids=["t1", "nobody"])
        await client.call(served.stub.CancelDistil, request)
        await asyncio.wait_for(ended.wait(), 120.0)
        with pytest.raises(errors.UnavailableError):
            await asking
    assert served.uploaded == []


async def test_real_lessons_of_a_repository_are_made_checked_and_kept_in_all_forms(
    served: code_distillers.Distiller, tmp_path: pathlib.Path
) -> None:
    served.link(code_distillers.repository(tmp_path, source=code_distillers.SOURCE)[0])
    made_by = generator.DatasetGenerator(config.Codebase())
    served.teacher.teach = code_lessons.CodeLessons(made_by).teach  # type: ignore[method-assign]
    async with code_distillers.serving(served, tmp_path):
        result, told = await served.distil()
    made = samples.from_bytes(served.uploaded[0])
    assert {sample.path for sample in made} == {"halves.py"}
    assert {sample.commit for sample in made} == {result.code_base.commit_id}
    assert sum(result.code_base.samples.values()) == len(made) >= 4
    assert result.teacher == samples.BY_REPOSITORY
    kept = {path.name for path in pathlib.Path(result.code_base.folder).iterdir()}
    assert {"samples.arrow", "README.md", "dataset_card.json", "told.json"} < kept
    assert result.code_base.probe and told[-1] == "distilled"


async def test_reading_thread_ends_when_the_real_lessons_are_cancelled(
    tmp_path: pathlib.Path,
) -> None:
    path, _ = code_distillers.repository(tmp_path, source=code_distillers.SOURCE, files=300)
    lessons = code_lessons.CodeLessons(generator.DatasetGenerator(config.Codebase()))
    begun = asyncio.Event()
    told: list[float] = []

    async def tell(share: float, detail: str) -> None:
        told.append(share)
        begun.set()

    making = asyncio.create_task(lessons.teach("t1", path, tell))
    await begun.wait()
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    before = len(told)
    # The threads of the loop are joined: what still reads would tell of it.
    await asyncio.get_running_loop().shutdown_default_executor()
    assert len(told) == before


async def test_repositories_are_listed_when_one_of_them_may_not_be_looked_into(
    served: code_distillers.Distiller, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, commit = code_distillers.repository(tmp_path)
    served.link(path)
    served.link(path, "shut")
    real = pathlib.Path.is_dir

    def is_dir(folder: pathlib.Path) -> bool:
        if folder.name == "shut":
            raise PermissionError(13, "Permission denied")
        return real(folder)

    monkeypatch.setattr(pathlib.Path, "is_dir", is_dir)
    found = await served.heads()
    assert found["tidal"] == (commit, "")
    assert "Permission denied" in found["shut"][1]


async def test_repositories_are_listed_with_their_commits_and_what_is_wrong(
    served: code_distillers.Distiller, tmp_path: pathlib.Path
) -> None:
    assert await served.heads() == {}
    path, commit = code_distillers.repository(tmp_path)
    served.link(path)
    served.link(tmp_path / "nowhere", "gone")
    served.link(tmp_path, "plain")
    served.link(path, "Wrong")
    served.link(path, os.fsdecode(b"not \xff UTF-8"))
    found = await served.heads()
    assert found["tidal"] == (commit, "")
    assert found["gone"][0] == "" and "where no folder is" in found["gone"][1]
    assert found["plain"][0] == "" and "not a git repository" in found["plain"][1]
    assert found["not \N{REPLACEMENT CHARACTER} UTF-8"][0] == ""
    assert found["Wrong"][0] == "" and "lower-case letters" in found["Wrong"][1]
