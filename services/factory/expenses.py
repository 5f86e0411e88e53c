"""Takes over from the distiller what a task's teachers cost."""

from __future__ import annotations

import structlog

from services.factory import board, partners
from shared import errors

_log = structlog.get_logger(__name__)


async def note(kept: board.TaskBoard, distiller: partners.Distiller, task_id: str) -> None:
    """Notes what the teachers of a task cost so far, also where they taught nothing.

    For people alone: the distiller keeps its budget by itself. So a distiller that can't be asked
    is no error.
    """
    try:
        spent = await distiller.spending(task_id)
    except errors.SkillmeshError as error:
        _log.warning("costs of teachers not known", task=task_id, reason=str(error))
        return
    now_ms = kept.now_ms()
    await kept.change(task_id, lambda task: task.paid(spent, now_ms))
