"""`RecordedProvider`: replays recorded answers of a teacher, for tests and audits.

The file is JSONL of this project, see `recording`, or a JSON list of passages, see `seal`.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import pydantic

from services.distiller import wording
from services.distiller.providers import base, recording, seal
from shared import errors
from shared.flight import datasets

_SCORE = 1.0


class RecordedProvider(base.CloudProvider):
    """Answers what stands in a file and nothing else."""

    def __init__(self, path: pathlib.Path) -> None:
        """Reads the file.

        Raises:
            errors.ConfigError: it is missing or malformed.
        """
        self.name = f"recorded:{path.stem}"
        self.repeats = frozenset({self.name})
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
                kind=pair.kind,
                passage=line.passage,
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


def _read(path: pathlib.Path) -> list[recording.Recording]:
    place = f"evolution.recordings: {path}"
    try:
        text = path.read_text(encoding="utf-8")
        return seal.read(text) if seal.is_seal(text) else recording.read(text)
    except (OSError, UnicodeDecodeError) as error:
        raise errors.ConfigError(f"{place} can't be read: {error}") from error
    except pydantic.ValidationError as error:
        raise errors.ConfigError(f"{place}, {recording.problem(error, 'the list')}") from error
    except ValueError as error:
        raise errors.ConfigError(f"{place} {error}") from error
