"""What questions mean: which are small talk, and which ask for what an open task learns already.

Compares sentence vectors, which the router makes. Keeps those of open tasks in memory, a bounded
number; after a restart they are made again. Knows nothing about ledgers and events.
"""

from __future__ import annotations

import collections
import pathlib
import re
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import numpy.typing as npt
import structlog

from services.factory import tasks
from shared import errors

Vectors = npt.NDArray[np.float32]
Embed = Callable[[Sequence[str]], Awaitable[Vectors]]
"""Unit vectors of texts, (texts, dimension); raises `errors.SkillmeshError` where it can't."""
_SMALL_TALK = pathlib.Path(__file__).with_name("small_talk.txt")
_MOST_OF_A_TASK = 8
"""Questions of a task that are compared with."""
_MOST_TASKS = 4_096
"""Tasks that are compared with; those that nobody asked for the longest are forgotten."""
_MOST_RECALLED = 1_000
"""Open tasks that are taken up together."""
_NUMBER = re.compile(r"\d+")
_log = structlog.get_logger(__name__)


class Meanings:
    """Vectors of small talk and of the questions of open tasks."""

    def __init__(self, embed: Embed, same_gap: float) -> None:
        """Takes what makes vectors, and the cosine from which on two questions are about one gap.

        Args:
            embed: asks the router.
            same_gap: 0 to 1.
        """
        self._embed = embed
        self._same_gap = same_gap
        self._small_talk_S_D: Vectors | None = None
        self._of_tasks: collections.OrderedDict[str, list[tuple[str, Vectors]]]
        self._of_tasks = collections.OrderedDict()

    async def of(self, query: str) -> Vectors | None:
        """The vector of a question; None where nobody can make it now."""
        try:
            if self._small_talk_S_D is None:
                lines = _SMALL_TALK.read_text(encoding="utf-8").splitlines()
                self._small_talk_S_D = await self._embed(list(filter(None, lines)))
            vector_D: Vectors = (await self._embed([query]))[0]
        except errors.SkillmeshError as error:
            _log.info("question not embedded", reason=str(error))
            return None
        return vector_D

    def small_talk(self, vector_D: Vectors) -> float:
        """Cosine to the nearest known piece of small talk."""
        if self._small_talk_S_D is None:
            return 0.0
        return float((self._small_talk_S_D @ vector_D).max())

    def alike(self, query: str, vector_D: Vectors) -> str:
        """The id of the task with the most similar question; empty where none is similar enough.

        Questions with other numbers in them are about something else, however alike they sound.
        """
        numbers = _NUMBER.findall(query)
        found = [
            (task_id, vector)
            for task_id, kept in self._of_tasks.items()
            for text, vector in kept
            if _NUMBER.findall(text) == numbers
        ]
        if not found:
            return ""
        cosines = np.stack([vector for _, vector in found]) @ vector_D
        best = int(cosines.argmax())
        return found[best][0] if cosines[best] >= self._same_gap else ""

    def remember(self, task_id: str, query: str, vector_D: Vectors) -> None:
        """Keeps a question of an open task."""
        kept = self._of_tasks.setdefault(task_id, [])
        self._of_tasks.move_to_end(task_id)
        if len(kept) < _MOST_OF_A_TASK and all(query != text for text, _ in kept):
            kept.append((query, vector_D))
        if len(self._of_tasks) > _MOST_TASKS:
            self._of_tasks.popitem(last=False)

    async def keep_only(self, open_tasks: Sequence[tasks.TrainingTask]) -> None:
        """Forgets tasks that have ended, and takes up open ones that a process before knew."""
        task_ids = {task.id for task in open_tasks}
        for task_id in self._of_tasks.keys() - task_ids:
            del self._of_tasks[task_id]
        missing = [task for task in open_tasks if task.id not in self._of_tasks]
        asked = [(task.id, query) for task in missing for query in task.queries[:1]]
        asked = asked[:_MOST_RECALLED]
        if not asked:
            return
        try:
            vectors = await self._embed([query for _, query in asked])
        except errors.SkillmeshError as error:
            _log.info("open tasks not embedded", tasks=len(asked), reason=str(error))
            return
        for (task_id, query), vector_D in zip(asked, vectors, strict=True):
            self.remember(task_id, query, vector_D)
