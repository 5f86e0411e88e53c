"""Files of tasks: a folder for each, and JSON that counts as missing where it can't be read."""

from __future__ import annotations

import hashlib
import pathlib
from typing import TypeVar

import pydantic
import structlog

T = TypeVar("T")
_log = structlog.get_logger(__name__)


def folder_of(task_id: str, folder: pathlib.Path) -> pathlib.Path:
    """A task's own folder within that of all tasks; it need not exist."""
    # Hashed: a task's id comes from outside and must not choose a path.
    return folder / hashlib.sha256(task_id.encode()).hexdigest()


def read(path: pathlib.Path, shape: pydantic.TypeAdapter[T]) -> T | None:
    """What a file holds; None where it is missing, or can't be read, which the log tells."""
    try:
        return shape.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, pydantic.ValidationError) as error:
        _log.warning("journal file ignored", path=str(path), reason=str(error))
        return None
