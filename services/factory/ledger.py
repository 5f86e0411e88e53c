"""The durable table of tasks: one open task for each gap, every event counted once.

Each method is one transaction. Blocking; `board` calls it off the event loop. Knows nothing about
DBOS: what runs when is the workflow's business, what is so stands here.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from services.factory import tables, tasks
from shared import errors

T = TypeVar("T")

_ATTEMPTS = 3


class Ledger:
    """Tasks, events and updates in one database."""

    def __init__(self, url: str) -> None:
        """Opens the database and brings its tables up to date.

        Args:
            url: SQLAlchemy URL.
        """
        self._engine = tables.open_engine(url)

    def close(self) -> None:
        """Closes the connections."""
        self._engine.dispose()

    def record(
        self, event: tasks.CognitiveDissonance, fresh: tasks.TrainingTask
    ) -> tuple[tasks.TrainingTask, bool]:
        """Counts an event and finds the task for it.

        Args:
            event: what the router reported; a known event_id changes nothing.
            fresh: the task to open where no open one covers the gap. An open one that has not
                begun distilling takes the question in as a further one.

        Returns:
            The task, and whether it is the fresh one.
        """

        def write(connection: sa.Connection) -> tuple[tasks.TrainingTask, bool]:
            events = tables.dissonance_events
            known = connection.scalar(
                sa.select(events.c.task_id).where(events.c.event_id == event.event_id)
            )
            if known is not None:
                return _load(connection, known), False
            task, created = _cover(connection, fresh, None)
            connection.execute(
                events.insert().values(
                    event_id=event.event_id,
                    task_id=task.id,
                    query=event.query,
                    confidence=event.confidence,
                    detected_at_ms=event.detected_at_ms,
                    received_at_ms=fresh.created_at_ms,
                )
            )
            return task, created

        return self._write(write)

    def add(
        self, fresh: tasks.TrainingTask, idempotency_key: str
    ) -> tuple[tasks.TrainingTask, bool]:
        """Opens a task that a person asked for, unless an open one covers the gap.

        Args:
            fresh: the task to open.
            idempotency_key: the same key again returns the first task; empty for none.

        Raises:
            errors.AlreadyExistsError: the key was used for something else.
        """

        def write(connection: sa.Connection) -> tuple[tasks.TrainingTask, bool]:
            if idempotency_key:
                rows = tables.training_tasks
                known = connection.scalar(
                    sa.select(rows.c.id).where(rows.c.idempotency_key == idempotency_key)
                )
                if known is not None:
                    return _same_request(_load(connection, known), fresh), False
            return _cover(connection, fresh, idempotency_key or None)

        return self._write(write)

    def change(
        self, task_id: str, change: Callable[[tasks.TrainingTask], tasks.TrainingTask]
    ) -> tuple[tasks.TrainingTask, bool]:
        """Reads a task, changes it and writes it back.

        Args:
            task_id: which.
            change: returns the changed task, or the same one for no change. May run again.

        Returns:
            The task, and whether it changed.

        Raises:
            errors.NotFoundError: no such task.
        """

        def write(connection: sa.Connection) -> tuple[tasks.TrainingTask, bool]:
            before = _load(connection, task_id)
            after = change(before)
            if after != before:
                _save(connection, after)
            return after, after != before

        return self._write(write)

    def get(self, task_id: str) -> tasks.TrainingTask:
        """One task.

        Raises:
            errors.NotFoundError: no such task.
        """
        with self._read() as connection:
            return _load(connection, task_id, to_change=False)

    def covers(self, gap_key: str) -> bool:
        """Whether an open task covers that gap."""
        with self._read() as connection:
            return _covering(connection, [gap_key]) is not None

    def of_event(self, event_id: str) -> tasks.TrainingTask | None:
        """The task that an event led to."""
        events = tables.dissonance_events
        with self._read() as connection:
            found = connection.scalar(
                sa.select(events.c.task_id).where(events.c.event_id == event_id)
            )
            return None if found is None else _load(connection, found, to_change=False)

    def all(self, statuses: Sequence[tasks.TaskStatus], limit: int) -> list[tasks.TrainingTask]:
        """Tasks, the newest first.

        Args:
            statuses: only in these; empty for all.
            limit: this many at most.
        """
        rows = tables.training_tasks
        query = sa.select(rows).order_by(rows.c.created_at_ms.desc(), rows.c.id).limit(limit)
        if statuses:
            query = query.where(rows.c.status.in_([status.value for status in statuses]))
        with self._read() as connection:
            return [_task(row) for row in connection.execute(query).mappings()]

    def open(self) -> list[tasks.TrainingTask]:
        """Every task that has not ended, the oldest first."""
        rows = tables.training_tasks
        ended = [status.value for status in tasks.TaskStatus if status.final]
        query = sa.select(rows).where(rows.c.status.not_in(ended)).order_by(rows.c.created_at_ms)
        with self._read() as connection:
            return [_task(row) for row in connection.execute(query).mappings()]

    def _write(self, work: Callable[[sa.Connection], T]) -> T:
        for attempt in range(_ATTEMPTS):
            try:
                with self._engine.begin() as connection:
                    return work(connection)
            except sa.exc.IntegrityError:
                # PostgreSQL lets two writers look for an open gap at the same time; the slower
                # one meets the primary key, and finds the task when it looks again.
                if attempt == _ATTEMPTS - 1:
                    raise
        raise errors.InternalError("unreachable: the last attempt returns or raises")

    @contextlib.contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        with self._engine.connect().execution_options(reads_only=True) as connection:
            yield connection


def _cover(
    connection: sa.Connection, fresh: tasks.TrainingTask, idempotency_key: str | None
) -> tuple[tasks.TrainingTask, bool]:
    """The open task for the fresh one's gap, or the fresh one, opened."""
    found = _covering(connection, fresh.gap_keys())
    if found is None:
        connection.execute(
            tables.training_tasks.insert().values(**_row(fresh), idempotency_key=idempotency_key)
        )
        _note(connection, fresh)
        _claim(connection, fresh)
        return fresh, True
    existing = _load(connection, found)
    if existing.status is tasks.TaskStatus.PENDING:
        joined = existing.joined(fresh.queries, fresh.created_at_ms)
        if joined != existing:
            _save(connection, joined)
            _claim(connection, joined)
        existing = joined
    return existing, False


def _covering(connection: sa.Connection, gap_keys: Sequence[str]) -> str | None:
    gaps = tables.open_gaps
    rows = connection.execute(
        sa.select(gaps.c.gap_key, gaps.c.task_id).where(gaps.c.gap_key.in_(gap_keys))
    )
    found = {key: task_id for key, task_id in rows}
    return next((found[key] for key in gap_keys if key in found), None)


def _claim(connection: sa.Connection, task: tasks.TrainingTask) -> None:
    gaps = tables.open_gaps
    held = set(
        connection.scalars(sa.select(gaps.c.gap_key).where(gaps.c.gap_key.in_(task.gap_keys())))
    )
    wanted = [key for key in task.gap_keys() if key not in held]
    if wanted:
        connection.execute(gaps.insert(), [{"gap_key": key, "task_id": task.id} for key in wanted])


def _save(connection: sa.Connection, task: tasks.TrainingTask) -> None:
    rows = tables.training_tasks
    connection.execute(rows.update().where(rows.c.id == task.id).values(**_row(task)))
    _note(connection, task)
    if task.status.final:
        gaps = tables.open_gaps
        connection.execute(gaps.delete().where(gaps.c.task_id == task.id))


def _note(connection: sa.Connection, task: tasks.TrainingTask) -> None:
    connection.execute(
        tables.task_updates.insert().values(
            task_id=task.id,
            at_ms=task.updated_at_ms,
            status=task.status.value,
            progress=task.progress,
            detail=task.error or task.detail,
        )
    )


def _load(connection: sa.Connection, task_id: str, to_change: bool = True) -> tasks.TrainingTask:
    rows = tables.training_tasks
    query = sa.select(rows).where(rows.c.id == task_id)
    if to_change:
        query = query.with_for_update()
    row = connection.execute(query).mappings().first()
    if row is None:
        raise errors.NotFoundError(f"there is no task {task_id!r}")
    return _task(row)


def _same_request(known: tasks.TrainingTask, asked: tasks.TrainingTask) -> tasks.TrainingTask:
    def request(task: tasks.TrainingTask) -> tuple[str, ...]:
        return (task.trigger_query, task.topic, task.document, task.retry_of)

    if request(known) != request(asked):
        raise errors.AlreadyExistsError(
            f"the idempotency key belongs to task {known.id}, which asks for something else; use "
            "a new key"
        )
    return known


def _row(task: tasks.TrainingTask) -> dict[str, Any]:
    row = dataclasses.asdict(task)
    row["status"] = task.status.value
    row["other_queries"] = list(task.other_queries)
    row["stage_times"] = [[time.stage, time.seconds] for time in task.stage_times]
    return row


def _task(row: sa.RowMapping) -> tasks.TrainingTask:
    values = {field.name: row[field.name] for field in dataclasses.fields(tasks.TrainingTask)}
    values["status"] = tasks.TaskStatus(row["status"])
    values["other_queries"] = tuple(row["other_queries"])
    values["stage_times"] = tuple(tasks.StageTime(*pair) for pair in row["stage_times"])
    return tasks.TrainingTask(**values)
