"""The states of a learning task and the ways between them."""

from __future__ import annotations

import enum


class TaskStatus(enum.Enum):
    """Where a task stands."""

    PENDING = "PENDING"
    DISTILLING = "DISTILLING"
    TRAINING = "TRAINING"
    EVALUATING = "EVALUATING"
    PUBLISHING = "PUBLISHING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def final(self) -> bool:
        """Whether a task in this state changes no more."""
        return not _NEXT[self]

    def may_become(self, status: TaskStatus) -> bool:
        """Whether there is a way from this state to that one."""
        return status in _NEXT[self]


_NEXT: dict[TaskStatus, frozenset[TaskStatus]] = {
    TaskStatus.PENDING: frozenset({TaskStatus.DISTILLING, TaskStatus.FAILED, TaskStatus.CANCELLED}),
    TaskStatus.DISTILLING: frozenset(
        {TaskStatus.TRAINING, TaskStatus.FAILED, TaskStatus.CANCELLED}
    ),
    TaskStatus.TRAINING: frozenset(
        {TaskStatus.EVALUATING, TaskStatus.FAILED, TaskStatus.CANCELLED}
    ),
    # Back to training: a card that did not pass gets further tries.
    TaskStatus.EVALUATING: frozenset(
        {TaskStatus.TRAINING, TaskStatus.PUBLISHING, TaskStatus.FAILED, TaskStatus.CANCELLED}
    ),
    # No way to CANCELLED: the card may be with the nodes already.
    TaskStatus.PUBLISHING: frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED}),
    TaskStatus.COMPLETED: frozenset(),
    TaskStatus.FAILED: frozenset(),
    TaskStatus.CANCELLED: frozenset(),
}
