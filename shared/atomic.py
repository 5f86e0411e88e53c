"""Writes a file so that a reader, or a process killed in between, sees all of it or nothing."""

from __future__ import annotations

import os
import pathlib
import tempfile


def write(path: pathlib.Path, data: bytes) -> None:
    """Writes `data` to `path`, replacing what was there, and makes it durable.

    Args:
        path: the file; its folder is made where missing.
        data: the whole content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A leading dot and a suffix of its own keep a half-written file out of every listing.
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=".", suffix=".part", delete=False
    ) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            pathlib.Path(file.name).unlink(missing_ok=True)
            raise
    _sync_folder(path.parent)


def _sync_folder(folder: pathlib.Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
