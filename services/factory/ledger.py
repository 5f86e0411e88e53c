"""The durable table of tasks: one open task for each gap, every event counted once.

Each method is one transaction. Blocking; `board` calls it off the event loop. Knows nothing about
DBOS: what runs when is the workflow's business, what is so stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import sqlalchemy as sa

from services.factory import budget, dissonance, nights, rows, tables, tasks, transactions
from shared import errors

_MOST_CONSIDERED = 1_000
"""Waiting tasks that are looked at together."""


class Ledger:
    """Tasks, events and updates in one database."""

    def __init__(self, url: str) -> None:
        """Opens the database and brings its tables up to date.

        Args:
            url: SQLAlchemy URL.
        """
        self._database = transactions.Database(url)

    @property
    def database(self) -> transactions.Database:
        """Where the tables lie."""
        return self._database

    def close(self) -> None:
        """Closes the connections."""
        self._database.close()

    def record(
        self, event: dissonance.CognitiveDissonance, fresh: tasks.TrainingTask, alike: str = ""
    ) -> tuple[tasks.TrainingTask, bool]:
        """Counts an event and finds the task for it.

        Args:
            event: what the router reported; a known event_id changes nothing.
            fresh: the task to open where no open one covers the gap. An open one that has not
                begun distilling takes the question in as a further one.
            alike: the id of a task whose questions say much the same; it covers the gap where no
                other does, if it is still open.

        Returns:
            The task, and whether it is the fresh one.

        Raises:
            errors.PreconditionError: the event was dismissed; says why.
        """

        def write(connection: sa.Connection) -> tuple[tasks.TrainingTask, bool]:
            known = _outcome(connection, event.event_id)
            if isinstance(known, str):
                raise errors.PreconditionError(known)
            if known is not None:
                return known, False
            task, created = rows.cover(connection, fresh, None, alike)
            _count(connection, event, fresh.created_at_ms, task.id, "")
            return task, created

        return self._database.write(write)

    def dismiss(self, event: dissonance.CognitiveDissonance, reason: str, now_ms: int) -> None:
        """Counts an event from which nothing is learned; a known event_id changes nothing."""

        def write(connection: sa.Connection) -> None:
            if _outcome(connection, event.event_id) is None:
                _count(connection, event, now_ms, None, reason)

        self._database.write(write)

    def admit(
        self,
        now_ms: int,
        decide: Callable[[Sequence[tasks.TrainingTask], budget.Spending], list[str]],
        sleep: nights.Sleep = nights.AWAKE,
    ) -> tuple[list[tasks.TrainingTask], list[tasks.TrainingTask]]:
        """Lets tasks that wait start, as far as night and budget go.

        Args:
            now_ms: Unix time.
            decide: says of each task that waits, the most urgent first, why it must go on
                waiting; nothing where it may start.
            sleep: which tasks wait for the night.

        Returns:
            The tasks that start, and those whose reason to wait has changed.
        """

        def write(
            connection: sa.Connection,
        ) -> tuple[list[tasks.TrainingTask], list[tasks.TrainingTask]]:
            table = tables.training_tasks
            # Two that count at once would both find room in the budget for the last task.
            transactions.exclude_others(connection, "admit")
            asleep = _waiting(connection, nights.is_asleep(sleep), table.c.detail != sleep.reason)
            awake = _waiting(connection, sa.not_(nights.is_asleep(sleep)))
            reasons = decide(awake, _spending(connection, now_ms)) if awake else []
            started: list[tasks.TrainingTask] = []
            told: list[tasks.TrainingTask] = []
            for task, reason in [
                *((task, sleep.reason) for task in asleep),
                *zip(awake, reasons, strict=True),
            ]:
                after = task.waiting(reason, now_ms) if reason else task.admitted(now_ms)
                if after != task:
                    rows.save(connection, after, is_news=not reason)
                    (told if reason else started).append(after)
            return started, told

        return self._database.write(write)

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
                table = tables.training_tasks
                known = connection.scalar(
                    sa.select(table.c.id).where(table.c.idempotency_key == idempotency_key)
                )
                if known is not None:
                    return _same_request(rows.load(connection, known), fresh), False
            return rows.cover(connection, fresh, idempotency_key or None)

        return self._database.write(write)

    def change(
        self,
        task_id: str,
        change: Callable[[tasks.TrainingTask], tasks.TrainingTask],
        answered: Collection[str] | None = None,
    ) -> tuple[tasks.TrainingTask, list[tasks.TrainingTask]]:
        """Reads a task, changes it and writes it back; tasks that joined it end as it does.

        Args:
            task_id: which.
            change: returns the changed task, or the same one for no change. May run again.
            answered: where that completes it, the questions that it learned; None where that is
                not known.

        Returns:
            The task, and all tasks that changed.

        Raises:
            errors.NotFoundError: no such task.
        """

        def write(
            connection: sa.Connection,
        ) -> tuple[tasks.TrainingTask, list[tasks.TrainingTask]]:
            before = rows.load(connection, task_id)
            after = change(before)
            if after == before:
                return after, []
            rows.save(connection, after)
            return after, [after, *rows.end_followers(connection, after, answered)]

        return self._database.write(write)

    def get(self, task_id: str) -> tasks.TrainingTask:
        """One task.

        Raises:
            errors.NotFoundError: no such task.
        """
        with self._database.read() as connection:
            return rows.load(connection, task_id, to_change=False)

    def covers(self, gap_key: str) -> bool:
        """Whether an open task covers that gap."""
        with self._database.read() as connection:
            return bool(rows.covering(connection, [gap_key]))

    def of_event(self, event_id: str) -> tasks.TrainingTask | str | None:
        """The task that an event led to, or why to none; None where it is not known."""
        with self._database.read() as connection:
            return _outcome(connection, event_id, to_change=False)

    def all(
        self,
        statuses: Sequence[tasks.TaskStatus],
        limit: int,
        tenants: frozenset[str] | None = None,
    ) -> list[tasks.TrainingTask]:
        """Tasks, the newest first.

        Args:
            statuses: only in these; empty for all.
            limit: this many at most.
            tenants: whose, besides those of nobody; None for all.
        """
        table = tables.training_tasks
        query = sa.select(table).order_by(table.c.created_at_ms.desc(), table.c.id).limit(limit)
        if statuses:
            query = query.where(table.c.status.in_([status.value for status in statuses]))
        if tenants is not None:
            query = query.where(table.c.tenant.in_(["", *sorted(tenants)]))
        with self._database.read() as connection:
            return [rows.task_of(row) for row in connection.execute(query).mappings()]

    def counts(self) -> dict[tasks.TaskStatus, int]:
        """How many tasks there are in each state."""
        status = tables.training_tasks.c.status
        with self._database.read() as connection:
            found = connection.execute(sa.select(status, sa.func.count()).group_by(status))
            return {tasks.TaskStatus(name): count for name, count in found}

    def longest_silent_since_ms(self) -> int | None:
        """When the admitted, open task changed last that has not changed for longest."""
        table = tables.training_tasks
        is_open = table.c.status.not_in([one.value for one in tasks.TaskStatus if one.final])
        query = sa.select(sa.func.min(table.c.updated_at_ms)).where(
            is_open, table.c.admitted_at_ms > 0, table.c.joined_into == ""
        )
        with self._database.read() as connection:
            found: int | None = connection.scalar(query)
            return found

    def code_bases(self) -> list[tasks.TrainingTask]:
        """Of each code base that was learned the task that did so last, by its name."""
        table = tables.training_tasks
        query = (
            sa.select(table)
            .where(table.c.repository != "")
            .where(table.c.status == tasks.TaskStatus.COMPLETED.value)
            .order_by(table.c.repository, table.c.updated_at_ms, table.c.id)
        )
        with self._database.read() as connection:
            found = [rows.task_of(row) for row in connection.execute(query).mappings()]
        return list({task.repository: task for task in found}.values())

    def open(self) -> list[tasks.TrainingTask]:
        """Every task that has not ended, the oldest first."""
        table = tables.training_tasks
        ended = [status.value for status in tasks.TaskStatus if status.final]
        query = sa.select(table).where(table.c.status.not_in(ended)).order_by(table.c.created_at_ms)
        with self._database.read() as connection:
            return [rows.task_of(row) for row in connection.execute(query).mappings()]


def _waiting(
    connection: sa.Connection, *conditions: sa.ColumnElement[bool]
) -> list[tasks.TrainingTask]:
    """Tasks that have not started, the most urgent first; a nightly batch in its order behind."""
    table = tables.training_tasks
    query = (
        sa.select(table)
        .where(table.c.status == tasks.TaskStatus.PENDING.value)
        .where(table.c.admitted_at_ms == 0)
        .where(table.c.joined_into == "")
        .where(*conditions)
        .order_by(table.c.place, table.c.priority.desc(), table.c.created_at_ms, table.c.id)
        .limit(_MOST_CONSIDERED)
    )
    return [rows.task_of(row) for row in connection.execute(query).mappings()]


def _outcome(
    connection: sa.Connection, event_id: str, to_change: bool = True
) -> tasks.TrainingTask | str | None:
    """The task that an event led to, or why to none; None where it is not known."""
    events = tables.dissonance_events
    row = connection.execute(
        sa.select(events.c.task_id, events.c.reason).where(events.c.event_id == event_id)
    ).first()
    if row is None:
        return None
    return row.reason if row.task_id is None else rows.load(connection, row.task_id, to_change)


def _count(
    connection: sa.Connection,
    event: dissonance.CognitiveDissonance,
    now_ms: int,
    task_id: str | None,
    reason: str,
) -> None:
    signals = None if event.signals is None else event.signals.to_json()
    connection.execute(
        tables.dissonance_events.insert().values(
            event_id=event.event_id,
            task_id=task_id,
            reason=reason,
            query=event.query,
            confidence=event.confidence,
            detected_at_ms=event.detected_at_ms,
            received_at_ms=now_ms,
            signals=signals,
            domain=event.domain,
            tenant=event.tenant,
        )
    )


def _spending(connection: sa.Connection, now_ms: int) -> budget.Spending:
    table = tables.training_tasks
    ended = [status.value for status in tasks.TaskStatus if status.final]
    started = connection.execute(
        sa.select(table.c.tenant, table.c.admitted_at_ms).where(
            table.c.admitted_at_ms > max(0, now_ms - budget.WINDOW_MS)
        )
    )
    under_way = connection.scalar(
        sa.select(sa.func.count())
        .select_from(table)
        .where(table.c.admitted_at_ms > 0)
        .where(table.c.status.not_in(ended))
    )
    return budget.Spending(tuple((tenant, at_ms) for tenant, at_ms in started), int(under_way or 0))


def _same_request(known: tasks.TrainingTask, asked: tasks.TrainingTask) -> tasks.TrainingTask:
    def request(task: tasks.TrainingTask) -> tuple[str, ...]:
        return (task.trigger_query, task.topic, task.document, task.repository, task.retry_of)

    if request(known) != request(asked):
        raise errors.AlreadyExistsError(
            f"the idempotency key belongs to task {known.id}, which asks for something else; use "
            "a new key"
        )
    return known
