"""How many learning tasks may start: each asks a teacher, which costs money, and trains.

Pure: what was started stands in the ledger, so that a restart changes nothing. Tasks are counted
rather than tokens, which most teachers here do not tell.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
from collections.abc import Sequence

from services.factory import tasks
from shared import learning_settings

WINDOW_MS = 3_600_000
"""An hour, that ends now."""


@dataclasses.dataclass(frozen=True)
class Spending:
    """What was started lately."""

    started: tuple[tuple[str, int], ...] = ()
    """Tenant and Unix time in milliseconds of each task that started within the last hour."""
    under_way: int = 0
    """Tasks that started and have not ended."""


def reasons_to_wait(
    waiting: Sequence[tasks.TrainingTask],
    spent: Spending,
    limits: learning_settings.Budget,
    most_under_way: int,
) -> list[str]:
    """Why each task must wait; nothing for those that may start.

    Args:
        waiting: the most urgent first.
        spent: what was started before.
        limits: tasks an hour, of all and of each tenant; 0 for any number.
        most_under_way: started tasks that have not ended; what waits here overtakes by priority,
            what was started does not.
    """
    by_tenant = collections.defaultdict(list)
    for tenant, at_ms in spent.started:
        by_tenant[tenant].append(at_ms)
    all_ms = [at_ms for _, at_ms in spent.started]
    room = max(0, most_under_way - spent.under_way)
    reasons = []
    for task in waiting:
        own_ms = by_tenant[task.tenant]
        reason = ""
        if _is_used_up(all_ms, limits.tasks_per_hour):
            reason = _over("factory.budget.tasks_per_hour", all_ms, limits.tasks_per_hour)
        elif _is_used_up(own_ms, limits.tenant_tasks_per_hour):
            reason = _over(
                f"factory.budget.tenant_tasks_per_hour of {task.tenant or 'callers without one'}",
                own_ms,
                limits.tenant_tasks_per_hour,
            )
        elif not room:
            reason = "waits for its turn: others are being learned"
        if not reason:
            room -= 1
            for list_ms in (all_ms, own_ms):
                list_ms.append(0)
        reasons.append(reason)
    return reasons


def _is_used_up(started_ms: Sequence[int], limit: int) -> bool:
    return bool(limit) and len(started_ms) >= limit


def _over(key: str, started_ms: Sequence[int], limit: int) -> str:
    known_ms = sorted(at_ms for at_ms in started_ms if at_ms)
    # Those beyond the limit leave the window first, where it was lowered meanwhile.
    surplus = len(started_ms) - limit
    reason = f"waits: {key} is {limit}, and as many tasks started within the last hour"
    if surplus < len(known_ms):
        at_s = (known_ms[surplus] + WINDOW_MS) / 1000
        at = datetime.datetime.fromtimestamp(at_s, datetime.UTC)
        reason += f"; goes on after {at:%H:%M} UTC"
    return reason
