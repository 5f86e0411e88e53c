"""A teacher out of a file: questions and answers that somebody keeps, a pair a line, tab-separated.

The whole of a provider; see docs/how-to/write-a-provider.md for how one is configured.
"""

import csv
import pathlib
from collections.abc import Sequence

from services.distiller.providers import base
from shared import errors, questions
from shared.flight import datasets


class FaqProvider(base.CloudProvider):
    """Answers what stands in its file, and nothing else."""

    name = "faq"

    def __init__(self, path: pathlib.Path) -> None:
        """Takes the file; it is read at every request, so that it may change."""
        self._path = path

    async def generate_qa(self, request: base.QARequest) -> list[datasets.QAPair]:
        """The pairs that were asked for, and others of the file, as many as are wanted."""
        pairs = self._read()
        asked = {questions.fold(query) for query in request.queries}
        found = [pair for pair in pairs if questions.fold(pair.question) in asked]
        if not found and not request.topic:
            raise errors.NotFoundError(f"{self._path} answers none of the questions")
        others = [] if request.only_queries else [pair for pair in pairs if pair not in found]
        return [*found, *others][: request.count]

    async def locate(self, queries: Sequence[str]) -> list[base.Location]:
        """All questions of one file belong into one skill."""
        known = {questions.fold(pair.question) for pair in self._read()}
        return [
            base.Location(self._path.stem, 1.0)
            if questions.fold(query) in known
            else base.Location("", 0.0)
            for query in queries
        ]

    def _read(self) -> list[datasets.QAPair]:
        try:
            with self._path.open(encoding="utf-8", newline="") as file:
                rows = [row for row in csv.reader(file, delimiter="\t") if len(row) == 2]
        except OSError as error:
            raise errors.TeacherUnavailableError(f"{self._path} can't be read: {error}") from error
        return [
            datasets.QAPair(
                question=question,
                answer=answer,
                paraphrases=(),
                source=f"{self._path.name}:{number}",
                teacher=self.name,
                score=1.0,
                passage=f"{question} {answer}",
            )
            for number, (question, answer) in enumerate(rows, 1)
        ]
