"""Learning tasks, what they were made of, and who teaches."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from shared import costs

COMPLETED, FAILED, CANCELLED = "COMPLETED", "FAILED", "CANCELLED"
ENDED = (COMPLETED, FAILED, CANCELLED)
DETECT = "detect"
"""The stage of a gap that the router noticed; what is taught or corrected has none."""


@dataclasses.dataclass(frozen=True)
class StageTime:
    """How long one stage of a task took."""

    stage: str
    seconds: float


@dataclasses.dataclass(frozen=True)
class Task:
    """One learning task."""

    id: str
    trigger_query: str
    other_queries: tuple[str, ...]
    domain: str
    priority: int
    status: str
    card: str
    error: str
    progress: float
    """0 to 1 within the status."""
    detail: str
    stage_times: tuple[StageTime, ...]
    created_at_ms: int
    """Unix time."""
    updated_at_ms: int
    retry_of: str
    spent: costs.Spent = costs.NOTHING
    """What its teachers cost."""
    joined_into: str = ""
    """The task that learns its questions, and ends as it does."""
    repository: str = ""
    """The code base to be learned."""
    commit_id: str = ""
    """That it was read at."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in ENDED

    @property
    def detected(self) -> bool:
        """Whether the router noticed it, rather than that somebody taught or corrected it."""
        return any(time.stage == DETECT for time in self.stage_times)


def gaps(tasks: Sequence[Task]) -> list[Task]:
    """Those that began with a question that no card fitted, or that try one of these again.

    Args:
        tasks: the newest first, as the result is.
    """
    found: dict[str, Task] = {}
    for task in reversed(tasks):
        if task.detected or task.retry_of in found:
            found[task.id] = task
    return list(reversed(found.values()))


@dataclasses.dataclass(frozen=True)
class CodeBase:
    """What samples were made from."""

    repository: str
    commit_id: str
    licence: str
    """SPDX; empty where the repository does not say."""
    teacher: str
    files: int
    """That were read,"""
    lines: int
    """and their lines."""
    chunks: int
    """Definitions that samples were made from."""
    samples: dict[str, int]
    """By kind."""
    held_out: int
    """Of the samples."""
    removed: dict[str, int]
    """Secrets that were taken out, by kind."""
    skipped: dict[str, int]
    """Files left out, by reason."""
    rejected: dict[str, int]
    """Samples that did not pass a check, by reason."""
    samples_digest: str
    """Of the dataset in the card store."""
    folder: str
    """On the distiller's machine, with the dataset in all its forms."""


@dataclasses.dataclass(frozen=True)
class FeedbackTaken:
    """What comes of what a user said of an answer."""

    task_id: str
    """That learns from it; empty where nothing is learned."""
    reason: str
    """Why nothing is."""


@dataclasses.dataclass(frozen=True)
class CardFeedback:
    """How often users called answers of a card right and wrong."""

    card: str
    right: int
    wrong: int


@dataclasses.dataclass(frozen=True)
class NightlySkill:
    """Tasks of a nightly batch that are learned as one."""

    task_ids: tuple[str, ...]
    """The first learns the questions of all."""
    domain: str
    teacher: str
    """Asked first; empty for the first one configured."""
    base: str


@dataclasses.dataclass(frozen=True)
class Teacher:
    """One teacher of the chain."""

    name: str
    circuit: str
    """closed, open or half-open."""
    reason: str
    """Why it is not closed."""
    open_for_s: float
    """Nobody asks it for so long."""


@dataclasses.dataclass(frozen=True)
class Teachers:
    """Who teaches, and what that cost today (UTC)."""

    chain: tuple[Teacher, ...]
    today: costs.Spent
