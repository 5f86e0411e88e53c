"""The nightly batches in the database: which tasks each took up, and as which skills.

A batch is one transaction: a factory killed before it has gathered nothing, one killed after it
goes on with all of it. Blocking; `board` calls it off the event loop.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pydantic
import sqlalchemy as sa

from services.factory import clusters, rows, tables, tasks, transactions

_SKILLS = pydantic.TypeAdapter(tuple[clusters.Skill, ...])
_MOST_GATHERED = 1_000
"""Tasks of one night; the others wait for the next."""


@dataclasses.dataclass(frozen=True)
class Sleep:
    """Which tasks wait for the night."""

    priority_below: int
    """Those of a lower priority that no batch has taken up."""
    reason: str
    """What people see of them."""


AWAKE = Sleep(tasks.LOWEST_PRIORITY, "")
"""None of them."""


@dataclasses.dataclass(frozen=True)
class Night:
    """One nightly batch."""

    id: str
    due_ms: int
    """When it was to begin."""
    gathered_at_ms: int
    tasks: int
    skills: tuple[clusters.Skill, ...]
    """In the order in which they are learned."""


class NightBook:
    """All batches."""

    def __init__(self, database: transactions.Database) -> None:
        """Takes the ledger's database."""
        self._database = database

    def waiting(self, sleep: Sleep, until_ms: int) -> list[tasks.TrainingTask]:
        """Tasks that wait for a night, the most urgent first.

        Args:
            sleep: which ones do.
            until_ms: those that were there at this Unix time.
        """
        with self._database.read() as connection:
            query = (
                _waiting()
                .where(is_asleep(sleep))
                .where(tables.training_tasks.c.created_at_ms <= until_ms)
                .limit(_MOST_GATHERED)
            )
            return [rows.task_of(row) for row in connection.execute(query).mappings()]

    def find(self, night_id: str) -> Night | None:
        """A batch that was gathered."""
        with self._database.read() as connection:
            return _find(connection, night_id)

    def count(self) -> int:
        """How many were gathered."""
        with self._database.read() as connection:
            return int(
                connection.scalar(sa.select(sa.func.count()).select_from(tables.nights)) or 0
            )

    def gather(
        self, night_id: str, due_ms: int, plan: Sequence[clusters.Skill], now_ms: int
    ) -> tuple[Night, list[tasks.TrainingTask]]:
        """Takes tasks up, unless the batch is known already.

        Tasks that have ended, begun or grown too large meanwhile are left as they are.

        Returns:
            The batch, and the tasks that it changed.
        """

        def write(connection: sa.Connection) -> tuple[Night, list[tasks.TrainingTask]]:
            known = _find(connection, night_id)
            if known is not None:
                return known, []
            query = _waiting().with_for_update()
            query = query.where(
                tables.training_tasks.c.id.in_([one for skill in plan for one in skill.tasks])
            )
            waiting = {row["id"]: rows.task_of(row) for row in connection.execute(query).mappings()}
            changed, learned = list[tasks.TrainingTask](), list[clusters.Skill]()
            for skill in plan:
                members = _with_room([waiting[one] for one in skill.tasks if one in waiting])
                if not members:
                    continue
                leader, *others = members
                place = len(learned) + 1
                leader = leader.leading(others, night_id, place, skill.teacher, now_ms)
                followers = [one.following(leader, now_ms) for one in others]
                for task in (leader, *followers):
                    rows.save(connection, task)
                rows.hand_gaps_over(connection, [one.id for one in followers], leader.id)
                changed += [leader, *followers]
                ids = tuple(task.id for task in members)
                learned.append(dataclasses.replace(skill, tasks=ids))
            night = Night(night_id, due_ms, now_ms, len(changed), tuple(learned))
            connection.execute(
                tables.nights.insert().values(
                    **{
                        **dataclasses.asdict(night),
                        "skills": _SKILLS.dump_python(night.skills, mode="json"),
                    }
                )
            )
            return night, changed

        return self._database.write(write)


def is_asleep(sleep: Sleep) -> sa.ColumnElement[bool]:
    """Whether a task that has not started waits for the night."""
    table = tables.training_tasks
    return sa.and_(table.c.night == "", table.c.priority < sleep.priority_below)


def _waiting() -> sa.Select[tuple[object, ...]]:
    table = tables.training_tasks
    return (
        sa.select(table)
        .where(table.c.status == tasks.TaskStatus.PENDING.value)
        .where(table.c.admitted_at_ms == 0)
        .where(table.c.night == "")
        .order_by(table.c.priority.desc(), table.c.created_at_ms, table.c.id)
    )


def _with_room(members: Sequence[tasks.TrainingTask]) -> list[tasks.TrainingTask]:
    """Those whose questions fit into one task."""
    kept, asked = list[tasks.TrainingTask](), 0
    for task in members:
        if not kept or asked + len(task.queries) <= tasks.MOST_QUERIES:
            kept.append(task)
            asked += len(task.queries)
    return kept


def _find(connection: sa.Connection, night_id: str) -> Night | None:
    table = tables.nights
    row = connection.execute(sa.select(table).where(table.c.id == night_id)).mappings().first()
    if row is None:
        return None
    return Night(**{**row, "skills": _SKILLS.validate_python(row["skills"])})
