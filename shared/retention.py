"""Removes what tasks left behind, once nobody has touched it for long enough."""

from __future__ import annotations

import asyncio
import pathlib
import shutil
import time
from collections.abc import Sequence

import structlog

_DAY_S = 86_400.0
_log = structlog.get_logger(__name__)


def remove_old(folder: pathlib.Path, days: int, now_s: float, kept: Sequence[str] = ()) -> int:
    """Removes the folders within a folder of which no file has changed for some days.

    What can't be removed is told in the log and stays.

    Args:
        folder: one folder a task lies in it; it may be missing.
        days: 0 keeps everything.
        now_s: Unix time.
        kept: names that are no task's.

    Returns:
        How many were removed.
    """
    if not days or not folder.is_dir():
        return 0
    removed = 0
    for task in folder.iterdir():
        if task.name in kept or task.is_symlink() or not task.is_dir():
            continue
        try:
            touched_s = max(path.lstat().st_mtime for path in (task, *task.rglob("*")))
            if now_s - touched_s > days * _DAY_S:
                shutil.rmtree(task)
                removed += 1
        except OSError as error:
            _log.warning("an old task's files stay", path=str(task), reason=str(error))
    return removed


async def removing_old(
    folders: Sequence[pathlib.Path], days: int, kept: Sequence[str] = ()
) -> None:
    """Does so at once and every day, for ever; ends at once where `days` is 0."""
    while days:
        for folder in folders:
            removed = await asyncio.to_thread(remove_old, folder, days, time.time(), kept)
            if removed:
                _log.info("files of old tasks removed", folder=str(folder), tasks=removed)
        await asyncio.sleep(_DAY_S)
