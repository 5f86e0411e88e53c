"""Stand-ins for what the distiller talks to."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence

from services.distiller import code_bases, distillation, spending
from services.distiller.codebase.lessons import journal
from services.distiller.providers import base
from shared import errors, teacher_settings
from shared.flight import datasets, samples


def pair(
    question: str, answer: str, *paraphrases: str, score: float = 0.8, teacher: str = "fake"
) -> datasets.QAPair:
    """A pair with as little as possible spelled out."""
    return datasets.QAPair(question, answer, paraphrases, "a test", teacher, score)


class Teacher(base.CloudProvider):
    """Gives the same pairs to everyone, or fails, and remembers what it was asked."""

    def __init__(
        self,
        pairs: Sequence[datasets.QAPair],
        name: str = "fake",
        error: errors.SkillmeshError | None = None,
        title: str = "",
        summary: str = "",
    ) -> None:
        self.name = name
        self.pairs = list(pairs)
        self.error = error
        self.asked: list[base.QARequest] = []
        self.closed = False
        self._subject = base.Subject(title, summary)

    async def generate_qa(self, request: base.QARequest) -> list[datasets.QAPair]:
        self.asked.append(request)
        if self.error is not None:
            raise self.error
        return self.pairs

    async def subject(
        self, request: base.QARequest, pairs: Sequence[datasets.QAPair]
    ) -> base.Subject:
        return self._subject

    async def aclose(self) -> None:
        self.closed = True


class Rewording:
    """Rewords by a table."""

    def __init__(self, table: dict[str, list[str]]) -> None:
        self._table = table

    async def reword(self, question: str, most: int, others: Sequence[str]) -> list[str]:
        return self._table.get(question, [])[:most]


async def no_progress(share: float, detail: str) -> None:
    """Nobody listens."""


def ledger(
    settings: teacher_settings.Evolution | None = None,
    path: pathlib.Path | None = None,
    now_ms: Callable[[], int] = lambda: 0,
) -> spending.Ledger:
    """What was spent, in memory unless a file is named."""
    return spending.Ledger(path, settings or teacher_settings.Evolution(), now_ms)


COMMIT = "c" * 40


def sample(kind: samples.Kind = samples.Kind.WRITE, **fields: object) -> samples.Sample:
    """A sample with as little as possible spelled out."""
    values: dict[str, object] = {
        "kind": kind,
        "instruction": "" if kind is samples.Kind.COMPLETE else "Write half.",
        "input": "def half(x):\n",
        "output": "    return x / 2",
        "path": "halves.py",
        "symbol": "half",
        "language": "python",
        "licence": "MIT",
        "commit": COMMIT,
        "teacher": samples.BY_REPOSITORY,
    }
    return samples.Sample(**{**values, **fields})  # type: ignore[arg-type]


class CodeTeacher:
    """Makes the same lessons of every repository, or fails, and remembers which it was given."""

    def __init__(self, made: Sequence[samples.Sample]) -> None:
        self.made, self.commit_id = tuple(made), COMMIT
        self.error: errors.SkillmeshError | None = None
        self.asked: list[tuple[str, pathlib.Path]] = []

    async def teach(
        self, task_id: str, path: pathlib.Path, progress: distillation.ProgressCallback
    ) -> code_bases.Lessons:
        self.asked.append((task_id, path))
        await progress(0.5, "reading file 1 of 2")
        if self.error is not None:
            raise self.error
        return code_bases.Lessons(
            samples=self.made,
            teacher=samples.BY_REPOSITORY,
            commit_id=self.commit_id,
            licence="MIT",
            files=2,
            lines=40,
            chunks=3,
            removed={"AWS Access Key": 1},
            skipped={"binary": 2},
            rejected={"does not parse": 4},
        )


def no_code_bases(folder: pathlib.Path) -> code_bases.CodeBases:
    """Code bases of a distiller that may read none."""

    async def upload(data: bytes) -> str:
        raise AssertionError("nothing can have been made")

    permitted = code_bases.RepositoryFolder(folder / "no repositories")
    taught = CodeTeacher(()).teach
    return code_bases.CodeBases(
        permitted, taught, upload, folder / "code", journal.Journal(folder / "code").take_over
    )
