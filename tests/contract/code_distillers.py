"""A distiller that is served to tests of repositories, and repositories for it."""

from __future__ import annotations

import contextlib
import hashlib
import pathlib
import subprocess
from collections.abc import AsyncIterator
from typing import Any

from services.distiller import (
    code_bases,
    delivery,
    distiller,
    journal,
    knowledge,
    service,
)
from services.distiller.codebase.lessons import journal as lessons_journal
from shared import settings as config
from shared.flight import samples
from shared.pb import distiller_pb2, distiller_pb2_grpc
from shared.rpc import client, runs
from shared.rpc import server as rpc_server
from tests.unit.distiller import fakes

MADE = (
    fakes.sample(),
    fakes.sample(samples.Kind.COMPLETE, held_out=True, input="held out"),
    fakes.sample(samples.Kind.COMPLETE, input="before the cursor"),
)
SOURCE = '''"""Halves."""

from __future__ import annotations


def halve(values: list[float], times: int = 1) -> list[float]:
    """Halves every value, as often as is asked."""
    result = list(values)
    for _ in range(times):
        result = [value / 2 for value in result]
    return result


class Halver:
    """Halves and counts."""

    def __init__(self, times: int) -> None:
        """Takes how often."""
        self.times = times
        self.count = 0

    def run(self, values: list[float]) -> list[float]:
        """Halves some values and counts them."""
        self.count += len(values)
        return halve(values, self.times)

    def mean(self, values: list[float]) -> float:
        """The mean of the halves; zero of nothing."""
        halves = self.run(values)
        if not halves:
            return 0.0
        return sum(halves) / len(halves)
'''
REQUEST = distiller_pb2.DistilRequest(task_id="t1", repository="tidal")


class Distiller:
    """A served distiller, with what a test asks of it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder / "state" / "repositories"
        self.teacher = fakes.CodeTeacher(MADE)
        self.uploaded: list[bytes] = []
        self.stub: Any = None

    async def upload(self, data: bytes) -> str:
        self.uploaded.append(data)
        return hashlib.sha256(data).hexdigest()

    def link(self, path: pathlib.Path, name: str = "tidal") -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / name).symlink_to(path)

    async def distil(
        self, request: distiller_pb2.DistilRequest = REQUEST
    ) -> tuple[distiller_pb2.DistilResult, list[str]]:
        """The result, and what was told on the way."""
        told: list[str] = []

        async def note(update: distiller_pb2.DistilUpdate) -> None:
            told.append(update.detail)

        last = await client.last_of_stream(self.stub.Distil, request, note, 180.0)
        assert last.HasField("result")
        return last.result, told

    async def heads(self) -> dict[str, tuple[str, str]]:
        request = distiller_pb2.ListRepositoriesRequest()
        reply = await client.call(self.stub.ListRepositories, request)
        return {one.name: (one.commit_id, one.error) for one in reply.repositories}


@contextlib.asynccontextmanager
async def serving(made: Distiller, folder: pathlib.Path) -> AsyncIterator[Distiller]:
    teacher = fakes.Teacher([])
    cloud = distiller.CloudDistiller(teacher, journal.Journal(folder), config.Distiller())
    active = runs.Runs[service.Delivered]()
    code = code_bases.CodeBases(
        code_bases.RepositoryFolder(made.folder),
        made.teacher.teach,
        made.upload,
        folder / "state" / "code_bases",
        lessons_journal.Journal(folder / "tasks").take_over,
    )
    servicer = service.DistillerService(
        active,
        delivery.Delivery(cloud, made.upload).work,
        teacher,
        knowledge.KnowledgeFolder(folder),
        fakes.ledger(),
        code,
    )
    server = rpc_server.Server([servicer.add_to], "127.0.0.1:0")
    await server.start()
    async with client.channel(f"127.0.0.1:{server.port}") as channel:
        made.stub = distiller_pb2_grpc.DistillerStub(channel)
        yield made
    await active.close()
    await server.stop()


def repository(
    folder: pathlib.Path, name: str = "tidal", source: str = "x = 1\n", files: int = 1
) -> tuple[pathlib.Path, str]:
    """A git repository with one commit; its path and the commit."""
    path = folder / name
    path.mkdir(parents=True)
    (path / "halves.py").write_text(source)
    for number in range(1, files):
        (path / f"halves_{number}.py").write_text(source.replace("halve", f"halve_{number}"))
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    for command in (("init", "-q"), ("add", "."), (*who, "commit", "-q", "-m", "Halves")):
        subprocess.run(["git", "-C", str(path), *command], check=True)
    told = subprocess.run(
        ["git", "-C", str(path), "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    )
    return path, told.stdout.strip()
