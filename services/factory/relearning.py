"""Code bases that have moved on since they were learned are learned again, at night.

A commit is learned once, whether that went well or not: the next one is another try. Knows nothing
about git; the distiller says where each repository stands.
"""

from __future__ import annotations

import uuid

import structlog

from services.factory import board, partners, tasks
from shared import errors
from shared.rpc import client

_log = structlog.get_logger(__name__)
_PATIENCE_S = 60.0
"""For a distiller that is away."""


class Relearning:
    """Opens the tasks."""

    def __init__(
        self,
        kept: board.TaskBoard,
        distiller: partners.Distiller,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        """Takes the tasks, who knows the repositories, and how long that one is waited for."""
        self._board, self._distiller, self._patience_s = kept, distiller, patience_s

    async def run(self, due_ms: int) -> bool:
        """Opens a task of low priority for each code base whose HEAD is another commit.

        Args:
            due_ms: Unix time at which the night was due, of which the tasks are.

        Returns:
            Whether there were code bases to look at, and somebody who could tell of them.
        """
        learned = await self._board.code_bases()
        if not learned:
            return False
        try:
            found = await client.retried(self._distiller.repositories, self._patience_s)
        except errors.SkillmeshError as error:
            _log.warning("code bases not looked at", reason=str(error))
            return False
        by_name = {one.name: one for one in found}
        for task in learned:
            try:
                await self._look_at(task, by_name.get(task.repository), due_ms)
            except errors.SkillmeshError as error:
                # One code base must not keep the others, and the whole night, from being learned.
                _log.warning(
                    "code base not learned again", repository=task.repository, reason=str(error)
                )
        return True

    async def _look_at(
        self, learned: tasks.TrainingTask, now: partners.Repository | None, due_ms: int
    ) -> None:
        name = learned.repository
        if now is None or not now.commit_id:
            reason = "it is not among the repositories any more" if now is None else now.error
            _log.warning("code base not learned again", repository=name, reason=reason)
            return
        if now.commit_id == learned.commit_id:
            return
        fresh = tasks.TrainingTask(
            id=uuid.uuid4().hex[:16],
            trigger_query=name,
            repository=name,
            priority=tasks.LOWEST_PRIORITY,
            tenant=learned.tenant,
            created_at_ms=due_ms,
            updated_at_ms=due_ms,
        )
        task, created = await self._board.add(fresh, f"code:{name}:{now.commit_id}")
        if created:
            _log.info("code base moved on", repository=name, commit=now.commit_id, task=task.id)
