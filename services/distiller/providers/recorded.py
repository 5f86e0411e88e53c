"""`RecordedProvider`: replays recorded answers of a teacher, for tests and audits."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import pydantic

from services.distiller import wording
from services.distiller.providers import base
from shared import errors
from shared.flight import datasets

_SCORE = 1.0


class _Row(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class RecordedPair(_Row):
    """One pair of a recording."""

    question: str
    answer: str
    paraphrases: tuple[str, ...] = ()


class Recording(_Row):
    """One line of the file: what was asked and what the teacher answered."""

    queries: tuple[str, ...] = ()
    topic: str = ""
    pairs: tuple[RecordedPair, ...]


class RecordedProvider(base.CloudProvider):
    """Answers what stands in a JSONL file and nothing else."""

    def __init__(self, path: pathlib.Path) -> None:
        """Reads the file.

        Raises:
            errors.ConfigError: it is missing or one of its lines is malformed.
        """
        self.name = f"recorded:{path.stem}"
        self._path = path
        self._recordings = _read(path)

    async def generate_qa(self, request: base.QARequest) -> list[datasets.QAPair]:
        """The pairs of every line that shares a question with the request, or its topic."""
        wanted = {wording.key(query) for query in request.queries}
        topic = wording.key(request.topic)
        lines = [
            (number, line)
            for number, line in enumerate(self._recordings, 1)
            if wanted & {wording.key(query) for query in line.queries}
            or (topic and topic == wording.key(line.topic))
        ]
        if not lines:
            raise errors.NotFoundError(
                f"{self.name}: no line of {self._path} has one of these questions or this topic"
            )
        pairs = [
            datasets.QAPair(
                question=pair.question,
                answer=pair.answer,
                paraphrases=pair.paraphrases,
                source=f"{self._path.name}:{number}",
                teacher=self.name,
                score=_SCORE,
            )
            for number, line in lines
            for pair in line.pairs
        ]
        # Stable: what users asked for is not cut off by what merely belongs to it.
        pairs.sort(key=lambda pair: wording.key(pair.question) not in wanted)
        return pairs[: request.count]

    async def subject(
        self, request: base.QARequest, pairs: Sequence[datasets.QAPair]
    ) -> base.Subject:
        """The topic of the line that the first pair comes from."""
        if not pairs:
            return base.Subject()
        number = pairs[0].source.rpartition(":")[2]
        if not number.isdigit() or not 0 < int(number) <= len(self._recordings):
            return base.Subject()
        return base.Subject(self._recordings[int(number) - 1].topic)


def _read(path: pathlib.Path) -> list[Recording]:
    try:
        # Not `splitlines`: JSON strings may hold U+2028 and its like as they are.
        lines = path.read_text(encoding="utf-8").rstrip().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise errors.ConfigError(f"evolution.recordings: {path} can't be read: {error}") from error
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(Recording.model_validate_json(line))
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "the line"
            raise errors.ConfigError(
                f"evolution.recordings: {path} line {number}, {field}: {first['msg']}"
            ) from error
    return found
