"""Tasks and the gaps they cover as rows: read, written, claimed.

Each function is part of a transaction that its caller, the ledger, has open.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from services.factory import feedback, tables, tasks
from shared import costs, errors, questions


def still_open(connection: sa.Connection, task_id: str) -> str | None:
    """The task, or the one that learns its questions, where that has not ended."""
    table, gaps = tables.training_tasks, tables.open_gaps
    joined = sa.select(table.c.joined_into).where(table.c.id == task_id)
    works_on_it = connection.scalar(joined) or task_id
    return connection.scalar(
        sa.select(gaps.c.task_id).where(gaps.c.task_id == works_on_it).limit(1)
    )


def cover(
    connection: sa.Connection,
    fresh: tasks.TrainingTask,
    idempotency_key: str | None,
    alike: str = "",
) -> tuple[tasks.TrainingTask, bool]:
    """The open task that covers the gap of the fresh one, or that one, stored.

    A correction is for a task that can still learn it: where none of those that cover its gap can,
    it has one of its own.

    Args:
        connection: of the transaction.
        fresh: the task to open where no open one covers the gap.
        idempotency_key: kept with it; None for none.
        alike: the id of a task whose questions say much the same.

    Returns:
        The task, and whether it is the fresh one.
    """
    for found in [*covering(connection, fresh.gap_keys()), still_open(connection, alike)]:
        if found is None:
            continue
        before = load(connection, found)
        if fresh.corrections and not before.takes(fresh):
            continue
        after, now_ms = before.demanded(), fresh.created_at_ms
        if before.status is tasks.TaskStatus.PENDING:
            after = after.joined(fresh.queries, now_ms).corrected(fresh.corrections, now_ms)
        learns_more = (after.queries, after.corrections) != (before.queries, before.corrections)
        # Demand alone is no news: a line for each of a thousand askings would tell nobody anything.
        save(connection, after, is_news=learns_more)
        if learns_more:
            claim(connection, after)
        return after, False
    if fresh.corrections:
        asked = [f"question:{questions.fold(one.question)}" for one in fresh.corrections]
        fresh = fresh.following_on(next(iter(covering(connection, asked)), ""))
    row = {**row_of(fresh), "idempotency_key": idempotency_key}
    connection.execute(tables.training_tasks.insert().values(**row))
    note(connection, fresh)
    claim(connection, fresh)
    return fresh, True


def covering(connection: sa.Connection, gap_keys: Sequence[str]) -> list[str]:
    """The open tasks that cover one of those gaps, in the order of the gaps."""
    gaps = tables.open_gaps
    rows = connection.execute(
        sa.select(gaps.c.gap_key, gaps.c.task_id).where(gaps.c.gap_key.in_(gap_keys))
    )
    found = {key: task_id for key, task_id in rows}
    return list(dict.fromkeys(found[key] for key in gap_keys if key in found))


def claim(connection: sa.Connection, task: tasks.TrainingTask) -> None:
    """Makes a task cover those of its gaps that no open one does."""
    gaps = tables.open_gaps
    held = set(
        connection.scalars(sa.select(gaps.c.gap_key).where(gaps.c.gap_key.in_(task.gap_keys())))
    )
    wanted = [key for key in task.gap_keys() if key not in held]
    if wanted:
        connection.execute(gaps.insert(), [{"gap_key": key, "task_id": task.id} for key in wanted])


def save(connection: sa.Connection, task: tasks.TrainingTask, is_news: bool = True) -> None:
    """Writes a task over; one that has ended covers no gap any more."""
    rows = tables.training_tasks
    connection.execute(rows.update().where(rows.c.id == task.id).values(**row_of(task)))
    if is_news:
        note(connection, task)
    if task.status.final:
        gaps = tables.open_gaps
        connection.execute(gaps.delete().where(gaps.c.task_id == task.id))


def hand_gaps_over(connection: sa.Connection, task_ids: Sequence[str], to: str) -> None:
    """Makes a task cover what others covered."""
    gaps = tables.open_gaps
    if task_ids:
        connection.execute(gaps.update().where(gaps.c.task_id.in_(task_ids)).values(task_id=to))


def end_followers(
    connection: sa.Connection,
    leader: tasks.TrainingTask,
    answered: Collection[str] | None = None,
) -> list[tasks.TrainingTask]:
    """Ends the tasks that joined one which has ended; returns them.

    Args:
        connection: of the transaction.
        leader: the one that has ended.
        answered: the questions that it learned; None where that is not known.
    """
    if not leader.status.final:
        return []
    table = tables.training_tasks
    query = sa.select(table).where(table.c.joined_into == leader.id).with_for_update()
    changed = []
    for row in connection.execute(query).mappings().all():
        follower = task_of(row)
        if not follower.status.final:
            after = follower.ended_with(leader, leader.updated_at_ms, answered)
        elif leader.status is tasks.TaskStatus.FAILED:
            # Its card was rolled back after it had ended.
            after = follower.rolled_back(leader.error, leader.updated_at_ms)
        else:
            continue
        if after != follower:
            save(connection, after)
            if not after.status.final:
                claim(connection, after)
            changed.append(after)
    return changed


def note(connection: sa.Connection, task: tasks.TrainingTask) -> None:
    """Adds a line to what is told of a task."""
    connection.execute(
        tables.task_updates.insert().values(
            task_id=task.id,
            at_ms=task.updated_at_ms,
            status=task.status.value,
            progress=task.progress,
            detail=task.error or task.detail,
        )
    )


def load(connection: sa.Connection, task_id: str, to_change: bool = True) -> tasks.TrainingTask:
    """One task, locked against other writers where it is to be changed.

    Raises:
        errors.NotFoundError: no such task.
    """
    rows = tables.training_tasks
    query = sa.select(rows).where(rows.c.id == task_id)
    if to_change:
        query = query.with_for_update()
    row = connection.execute(query).mappings().first()
    if row is None:
        raise errors.NotFoundError(f"there is no task {task_id!r}")
    return task_of(row)


def row_of(task: tasks.TrainingTask) -> dict[str, Any]:
    """The columns of a task."""
    row = dataclasses.asdict(task)
    row["status"] = task.status.value
    row["other_queries"] = list(task.other_queries)
    row["corrections"] = [dataclasses.asdict(one) for one in task.corrections]
    row["stage_times"] = [[time.stage, time.seconds] for time in task.stage_times]
    return row


def task_of(row: sa.RowMapping) -> tasks.TrainingTask:
    """The task of a row."""
    values = {field.name: row[field.name] for field in dataclasses.fields(tasks.TrainingTask)}
    values["status"] = tasks.TaskStatus(row["status"])
    values["other_queries"] = tuple(row["other_queries"])
    values["spent"] = costs.Spent(**row["spent"])
    values["corrections"] = tuple(feedback.Correction(**one) for one in row["corrections"])
    values["stage_times"] = tuple(tasks.StageTime(*pair) for pair in row["stage_times"])
    return tasks.TrainingTask(**values)
