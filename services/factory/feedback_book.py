"""What users said of answers: one row each, with who said it and what came of it.

The row and the task that it leads to are one transaction. Blocking; `board` calls it off the event
loop.
"""

from __future__ import annotations

import dataclasses

import sqlalchemy as sa

from services.factory import budget, feedback, rows, tables, tasks, transactions
from shared import errors, grading, questions

_TOLD = ("question", "answer", "card", "is_right", "correction")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of feedback."""

    task: tasks.TrainingTask | None
    """That learns from it; None for none."""
    reason: str = ""
    """Why nothing is learned."""
    created: bool = False
    """Whether the task is new."""


class FeedbackBook:
    """All of it."""

    def __init__(self, database: transactions.Database) -> None:
        """Takes the ledger's database."""
        self._database = database

    def find(self, given: feedback.Feedback) -> Outcome | None:
        """What came of feedback that is on record; None where it is new.

        Raises:
            errors.AlreadyExistsError: the caller said something else under the same key.
        """
        with self._database.read() as connection:
            return _find(connection, given, to_change=False)

    def record(
        self,
        given: feedback.Feedback,
        now_ms: int,
        fresh: tasks.TrainingTask | None,
        reason: str = "",
        alike: str = "",
        most_an_hour: int = 0,
    ) -> Outcome:
        """Puts feedback on record and finds the task for it; what is known changes nothing.

        Args:
            given: what was said.
            now_ms: Unix time.
            fresh: the task to open where no open one learns it; None: nothing is learned.
            reason: why nothing is.
            alike: see `rows.cover`.
            most_an_hour: of one tenant; 0 for any number.

        Raises:
            errors.AlreadyExistsError: the caller said something else under the same key.
            errors.OverloadedError: the tenant said enough within the last hour.
        """

        def write(connection: sa.Connection) -> Outcome:
            known = _find(connection, given)
            if known is not None:
                return known
            _check_rate(connection, given.tenant, now_ms, most_an_hour)
            outcome = Outcome(None, reason)
            if fresh is not None:
                task, created = rows.cover(connection, fresh, None, alike)
                outcome = Outcome(task, "", created)
            key = questions.fold(given.question)
            connection.execute(
                tables.feedback.insert().values(
                    caller=given.caller,
                    idempotency_key=given.idempotency_key,
                    tenant=given.tenant,
                    received_at_ms=now_ms,
                    question_key=key,
                    contradicts=_contradicted(connection, key, given.correction),
                    task_id=None if outcome.task is None else outcome.task.id,
                    reason=reason,
                    **{name: getattr(given, name) for name in _TOLD},
                )
            )
            return outcome

        return self._database.write(write)

    def counts(self, card: str) -> feedback.Counts:
        """How often answers were called right and wrong.

        Args:
            card: `name@digest`; a name for all its versions; empty for the bare base model.
        """
        table = tables.feedback
        of_card = table.c.card == card
        if card and "@" not in card:
            of_card = table.c.card.startswith(f"{card}@", autoescape=True)
        query = sa.select(table.c.is_right, sa.func.count()).where(of_card)
        with self._database.read() as connection:
            found = {
                bool(right): count
                for right, count in connection.execute(query.group_by(table.c.is_right))
            }
        return feedback.Counts(found.get(True, 0), found.get(False, 0))


def _find(
    connection: sa.Connection, given: feedback.Feedback, to_change: bool = True
) -> Outcome | None:
    table = tables.feedback
    row = (
        connection.execute(
            sa.select(table)
            .where(table.c.caller == given.caller)
            .where(table.c.idempotency_key == given.idempotency_key)
        )
        .mappings()
        .first()
    )
    if row is None:
        return None
    if any(row[name] != getattr(given, name) for name in _TOLD):
        raise errors.AlreadyExistsError(
            f"the idempotency key {given.idempotency_key!r} belongs to other feedback; use a new "
            "key"
        )
    task_id = row["task_id"]
    task = None if task_id is None else rows.load(connection, task_id, to_change)
    return Outcome(task, row["reason"])


def _check_rate(connection: sa.Connection, tenant: str, now_ms: int, most: int) -> None:
    if not most:
        return
    table = tables.feedback
    said = connection.scalar(
        sa.select(sa.func.count())
        .select_from(table)
        .where(table.c.tenant == tenant)
        .where(table.c.received_at_ms > now_ms - budget.WINDOW_MS)
    )
    if (said or 0) >= most:
        raise errors.OverloadedError(
            f"factory.budget.tenant_feedback_per_hour of {tenant or 'callers without a tenant'} is "
            f"{most}, and as much was said within the last hour; say it later"
        )


def _contradicted(connection: sa.Connection, key: str, correction: str) -> int | None:
    """The latest correction of a question that says otherwise; None for none."""
    if not correction:
        return None
    table = tables.feedback
    before = connection.execute(
        sa.select(table.c.sequence, table.c.correction)
        .where(table.c.question_key == key)
        .where(table.c.correction != "")
        .order_by(table.c.sequence.desc())
        .limit(1)
    ).first()
    if before is None or grading.normalise(before.correction) == grading.normalise(correction):
        return None
    return int(before.sequence)
