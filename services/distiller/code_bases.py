"""From a repository to samples in the card store: what may be read, what was made, what is kept.

A finished task is not made again: its samples and what is told of them lie in a folder of their
own. Knows nothing about how lessons are made of code, nor about gRPC.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Awaitable, Callable, Mapping, Sequence

import pydantic
import structlog

from services.distiller import distillation
from services.distiller.codebase import repository as repositories_of_git
from shared import atomic, errors, repositories
from shared.flight import samples
from shared.rpc import runs

_UPLOADING = 0.97
_SAMPLES_FILE, _TOLD_FILE = "samples.arrow", "told.json"
_LONGEST_PROBE = 2_000
_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True)
class Lessons:
    """What a repository teaches, as it stands at one commit."""

    samples: tuple[samples.Sample, ...]
    teacher: str
    """Who wrote them: provider and model, or `samples.BY_REPOSITORY`."""
    commit_id: str
    licence: str = ""
    """SPDX; empty where the repository does not say."""
    files: int = 0
    """That were read."""
    lines: int = 0
    chunks: int = 0
    """Definitions that lessons were made from."""
    removed: dict[str, int] = dataclasses.field(default_factory=dict)
    """Secrets that were taken out, by what they looked like."""
    skipped: dict[str, int] = dataclasses.field(default_factory=dict)
    """Files that were not read, by reason."""
    rejected: dict[str, int] = dataclasses.field(default_factory=dict)
    """Samples that did not pass a check, by reason."""
    files_to_keep: dict[str, bytes] = dataclasses.field(default_factory=dict)
    """For people, by name: the samples in further forms, and what is to be known of them."""


Teach = Callable[[str, pathlib.Path, distillation.ProgressCallback], Awaitable[Lessons]]
"""Makes the lessons of the repository in a folder, for the task of an id; never blocks the event
loop for long, and ends its work when it is cancelled."""


@dataclasses.dataclass(frozen=True)
class CodeBase:
    """What is told of a repository's samples."""

    repository: str
    teacher: str
    commit_id: str
    licence: str
    files: int
    lines: int
    chunks: int
    samples: dict[str, int]
    """By kind."""
    held_out: int
    removed: dict[str, int]
    skipped: dict[str, int]
    rejected: dict[str, int]
    probe: str
    """Text before a cursor, as the samples have it."""
    folder: str
    """Where the dataset lies in all its forms."""


@dataclasses.dataclass(frozen=True)
class Delivered:
    """Samples that lie in the card store; the factory commits them."""

    code_base: CodeBase
    digest: str
    size_bytes: int


@dataclasses.dataclass(frozen=True)
class Head:
    """A repository that may be learned."""

    name: str
    commit_id: str
    """Of HEAD; empty where it can't be read."""
    error: str = ""
    """Why."""


_TOLD = pydantic.TypeAdapter(CodeBase)


class RepositoryFolder:
    """The folder whose repositories, in it or linked from it, may be learned: no others are."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Takes the folder, which need not exist yet."""
        self._folder = folder

    def find(self, name: str) -> pathlib.Path:
        """Where a repository lies.

        Raises:
            errors.InvalidInputError: the name is no name of a repository.
            errors.NotFoundError: there is none of that name; says how to permit one.
        """
        repositories.check_name(name)
        path = self._folder / name
        try:
            if path.is_dir():
                return path
        except OSError as error:
            raise errors.NotFoundError(
                f"repository {name}: {path} can't be looked into ({error.strerror}); let the user"
                " who runs the distiller read it"
            ) from None
        if path.is_symlink():
            raise errors.NotFoundError(
                f"repository {name}: {path} is a link to {path.readlink()}, where no folder is; "
                "link it anew"
            )
        raise errors.NotFoundError(
            f"repository {name} may not be learned: only those in {self._folder} may, or linked "
            f"from there; make teach-repo path=/path/of/{name} links it, and so does "
            f"ln -s /path/of/{name} {path}"
        )

    def heads(self) -> list[Head]:
        """All repositories, by name; blocks."""
        if not self._folder.is_dir():
            return []
        return [self._head(path) for path in sorted(self._folder.iterdir())]

    def _head(self, path: pathlib.Path) -> Head:
        try:
            found = repositories_of_git.Repository.open(self.find(path.name))
        except (errors.SkillmeshError, OSError) as error:
            return Head(_told_name(path.name), "", _told_name(str(error)))
        return Head(path.name, found.commit)


def _told_name(name: str) -> str:
    """What can be told of a file's name, which may be any bytes."""
    return os.fsencode(name).decode(errors="replace")


class CodeBases:
    """Makes samples of repositories and delivers them."""

    def __init__(
        self,
        folder: RepositoryFolder,
        teach: Teach,
        upload: Callable[[bytes], Awaitable[str]],
        kept: pathlib.Path,
        take_over: Callable[[str, Sequence[str]], None],
    ) -> None:
        """Takes what it works with.

        Args:
            folder: says what may be read.
            teach: makes lessons; asked once for each task.
            upload: puts samples' bytes into the card store and returns their digest.
            kept: folder for finished tasks, made when the first one is.
            take_over: makes what a teacher answered to earlier tasks a task's own, see
                `codebase.lessons.journal.Journal.take_over`; blocks.
        """
        self._folder, self._teach, self._upload, self._kept = folder, teach, upload, kept
        self._take_over = take_over

    async def heads(self) -> list[Head]:
        """The repositories that may be learned, and where each stands."""
        return await asyncio.to_thread(self._folder.heads)

    async def work(self, request: distillation.DistilRequest, report: runs.Report) -> Delivered:
        """Makes the samples of a repository, unless the task has them, and delivers them.

        Raises:
            errors.InvalidInputError: something else is to be learned with it, or the folder is no
                repository.
            errors.NotFoundError: the repository may not be read.
            errors.PreconditionError: it has nothing to teach.
        """
        if not request.task_id:
            raise errors.InvalidInputError("a distillation needs a task_id, its idempotency key")
        if request.queries or request.topic or request.document or request.of_task:
            raise errors.InvalidInputError(
                f"task {request.task_id}: a repository is learned alone, without queries, topic, "
                "document or other task"
            )
        kept = self._of_task(request.task_id)
        found = await asyncio.to_thread(_read, kept)
        if found is None:
            path = self._folder.find(request.repository)
            found = await asyncio.to_thread(self._made_before, request, path)
            if found is None:
                await asyncio.to_thread(self._take_over, request.task_id, request.retry_of)
                lessons = await self._teach(request.task_id, path, report)
                told = _told(request.repository, lessons, kept)
                await asyncio.to_thread(_write, kept, lessons.files_to_keep)
                found = told, await asyncio.to_thread(samples.to_bytes, lessons.samples)
            await asyncio.to_thread(_keep, kept, *found)
        told, data = found
        await report(_UPLOADING, "uploading the samples")
        return Delivered(told, await self._upload(data), len(data))

    def _made_before(
        self, request: distillation.DistilRequest, path: pathlib.Path
    ) -> tuple[CodeBase, bytes] | None:
        """What an earlier try made of the same commit: its teacher was paid already."""
        for task_id in request.retry_of:
            found = _read(self._of_task(task_id))
            if found is not None and found[0].repository == request.repository:
                now = repositories_of_git.Repository.open(path).commit
                return found if found[0].commit_id == now else None
        return None

    def _of_task(self, task_id: str) -> pathlib.Path:
        # Hashed: a task's id comes from outside and must not choose a path.
        return self._kept / hashlib.sha256(task_id.encode()).hexdigest()


def _read(folder: pathlib.Path) -> tuple[CodeBase, bytes] | None:
    try:
        told = _TOLD.validate_json((folder / _TOLD_FILE).read_bytes())
        data = (folder / _SAMPLES_FILE).read_bytes()
        samples.check(data)
    except FileNotFoundError:
        return None
    except (OSError, pydantic.ValidationError, errors.InvalidInputError) as error:
        _log.warning("kept samples ignored", folder=str(folder), reason=str(error))
        return None
    return told, data


def _keep(folder: pathlib.Path, told: CodeBase, data: bytes) -> None:
    # What is told comes last: with it the task is finished.
    _write(folder, {_SAMPLES_FILE: data, _TOLD_FILE: _TOLD.dump_json(told)})


def _write(folder: pathlib.Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        atomic.write(folder / name, content)


def _told(repository: str, lessons: Lessons, folder: pathlib.Path) -> CodeBase:
    if not lessons.samples:
        skipped = ", ".join(f"{count} {reason}" for reason, count in lessons.skipped.items())
        raise errors.PreconditionError(
            f"repository {repository} has nothing to teach: of {lessons.files} files read no "
            f"sample was made (files left out: {skipped or 'none'})"
        )
    kinds = collections.Counter(sample.kind.value for sample in lessons.samples)
    return CodeBase(
        repository=repository,
        teacher=lessons.teacher,
        commit_id=lessons.commit_id,
        licence=lessons.licence,
        files=lessons.files,
        lines=lessons.lines,
        chunks=lessons.chunks,
        samples=dict(sorted(kinds.items())),
        held_out=sum(sample.held_out for sample in lessons.samples),
        removed=lessons.removed,
        skipped=lessons.skipped,
        rejected=lessons.rejected,
        probe=_probe(lessons.samples),
        folder=str(folder.absolute()),
    )


def _probe(made: tuple[samples.Sample, ...]) -> str:
    """Text before a cursor: of a completion that is trained, else of any sample."""
    ordered = sorted(
        made, key=lambda sample: (sample.kind is not samples.Kind.COMPLETE, sample.held_out)
    )
    first = ordered[0]
    text = first.input if first.kind is samples.Kind.COMPLETE else first.output
    return text[-_LONGEST_PROBE:]
