"""What a teacher wrote about definitions, on disk, so that nothing is paid for twice.

A folder for each task, as in `services.distiller.journal`, with a file for each definition, named
by the digest of everything that was sent. Files appear whole or not at all; one that can't be read
counts as missing, which costs a call.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib

import pydantic
import structlog

from services.distiller.providers import base
from shared import atomic

_log = structlog.get_logger(__name__)
_ANSWER: pydantic.TypeAdapter[base.CodeAnswer] = pydantic.TypeAdapter(base.CodeAnswer)


@dataclasses.dataclass(frozen=True)
class Journal:
    """The answers of all tasks."""

    folder: pathlib.Path
    """Made when the first file is written."""

    def answer(self, request: base.CodeRequest) -> base.CodeAnswer | None:
        """What a teacher wrote to this request of the task; nothing where none did yet."""
        path = self._path(request)
        try:
            return _ANSWER.validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, pydantic.ValidationError) as error:
            _log.warning("journal file ignored", path=str(path), reason=str(error))
            return None

    def keep(self, request: base.CodeRequest, answer: base.CodeAnswer) -> None:
        """Keeps what a teacher wrote."""
        atomic.write(self._path(request), _ANSWER.dump_json(answer))

    def _path(self, request: base.CodeRequest) -> pathlib.Path:
        # Hashed: a task's id comes from outside and must not choose a path.
        task = hashlib.sha256(request.task_id.encode()).hexdigest()
        told = "\0".join((request.language, request.path, request.symbol, request.shown))
        digest = hashlib.sha256(told.encode(errors="replace")).hexdigest()
        return self.folder / task / f"code-{digest}.json"
