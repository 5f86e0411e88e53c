"""What a teacher wrote about definitions, on disk, so that nothing is paid for twice.

A folder for each task, as in `services.distiller.journal`, with a file for each definition, named
by the digest of everything that was sent. Files appear whole or not at all; one that can't be read
counts as missing, which costs a call.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Sequence

import pydantic

from services.distiller import task_files
from services.distiller.providers import base
from shared import atomic

_ANSWER: pydantic.TypeAdapter[base.CodeAnswer] = pydantic.TypeAdapter(base.CodeAnswer)


@dataclasses.dataclass(frozen=True)
class Journal:
    """The answers of all tasks."""

    folder: pathlib.Path
    """Made when the first file is written."""

    def answer(self, request: base.CodeRequest) -> base.CodeAnswer | None:
        """What a teacher wrote to this request of the task; nothing where none did yet."""
        return task_files.read(self._path(request), _ANSWER)

    def keep(self, request: base.CodeRequest, answer: base.CodeAnswer) -> None:
        """Keeps what a teacher wrote."""
        atomic.write(self._path(request), _ANSWER.dump_json(answer))

    def take_over(self, task_id: str, earlier: Sequence[str]) -> None:
        """Makes what earlier tasks were answered the task's own, where it has nothing yet.

        Args:
            task_id: of the task that tries again.
            earlier: what it tries again, the latest first.
        """
        for one in earlier:
            for path in sorted(self._of_task(one).glob("code-*.json")):
                own = self._of_task(task_id) / path.name
                if not own.exists():
                    atomic.write(own, path.read_bytes())

    def _of_task(self, task_id: str) -> pathlib.Path:
        return task_files.folder_of(task_id, self.folder)

    def _path(self, request: base.CodeRequest) -> pathlib.Path:
        told = "\0".join((request.language, request.path, request.symbol, request.shown))
        digest = hashlib.sha256(told.encode(errors="replace")).hexdigest()
        return self._of_task(request.task_id) / f"code-{digest}.json"
