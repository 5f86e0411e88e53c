"""The ledger's tables, and how its database is opened and brought up to date.

Knows columns; what they mean is the business of `tasks` and `ledger`.
"""

from __future__ import annotations

import logging
import pathlib
from typing import Any

import alembic.command
import alembic.config
import sqlalchemy as sa

metadata = sa.MetaData()

training_tasks = sa.Table(
    "training_tasks",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("trigger_query", sa.Text, nullable=False),
    sa.Column("other_queries", sa.JSON, nullable=False),
    sa.Column("topic", sa.Text, nullable=False),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("repository", sa.Text, nullable=False, index=True),
    sa.Column("commit_id", sa.Text, nullable=False),
    sa.Column("topic_key", sa.Text, nullable=False),
    sa.Column("domain", sa.Text, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("status", sa.Text, nullable=False, index=True),
    sa.Column("card", sa.Text, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("progress", sa.Float, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("stage_times", sa.JSON, nullable=False),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("stage_since_ms", sa.BigInteger, nullable=False),
    sa.Column("created_at_ms", sa.BigInteger, nullable=False, index=True),
    sa.Column("updated_at_ms", sa.BigInteger, nullable=False),
    sa.Column("retry_of", sa.Text, nullable=False),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("demand", sa.Integer, nullable=False),
    sa.Column("admitted_at_ms", sa.BigInteger, nullable=False, index=True),
    sa.Column("night", sa.Text, nullable=False),
    sa.Column("place", sa.Integer, nullable=False),
    sa.Column("joined_into", sa.Text, nullable=False, index=True),
    sa.Column("teacher", sa.Text, nullable=False),
    sa.Column("trainer", sa.Text, nullable=False),
    sa.Column("spent", sa.JSON, nullable=False),
    sa.Column("corrections", sa.JSON, nullable=False),
    sa.Column("traceparent", sa.Text, nullable=False),
    sa.Column("idempotency_key", sa.Text, unique=True),
)

nights = sa.Table(
    # One row for each nightly batch: what makes a second one of the same night impossible.
    "nights",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("due_ms", sa.BigInteger, nullable=False),
    sa.Column("gathered_at_ms", sa.BigInteger, nullable=False),
    sa.Column("tasks", sa.Integer, nullable=False),
    sa.Column("skills", sa.JSON, nullable=False),
)

open_gaps = sa.Table(
    # One row for each thing that an open task covers; the primary key is what makes a second
    # open task for the same gap impossible, whatever happens at the same time.
    "open_gaps",
    metadata,
    sa.Column("gap_key", sa.Text, primary_key=True),
    sa.Column("task_id", sa.Text, sa.ForeignKey("training_tasks.id"), nullable=False, index=True),
)

dissonance_events = sa.Table(
    "dissonance_events",
    metadata,
    sa.Column("event_id", sa.Text, primary_key=True),
    sa.Column("task_id", sa.Text, sa.ForeignKey("training_tasks.id"), index=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("query", sa.Text, nullable=False),
    sa.Column("confidence", sa.Float, nullable=False),
    sa.Column("detected_at_ms", sa.BigInteger, nullable=False),
    sa.Column("received_at_ms", sa.BigInteger, nullable=False),
    sa.Column("signals", sa.JSON),
    sa.Column("domain", sa.Text, nullable=False),
    sa.Column("tenant", sa.Text, nullable=False),
)

feedback = sa.Table(
    # What users said of answers, and who: kept for good, whatever became of it.
    "feedback",
    metadata,
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("caller", sa.Text, nullable=False),
    sa.Column("idempotency_key", sa.Text, nullable=False),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("received_at_ms", sa.BigInteger, nullable=False),
    sa.Column("question", sa.Text, nullable=False),
    sa.Column("question_key", sa.Text, nullable=False, index=True),
    sa.Column("answer", sa.Text, nullable=False),
    sa.Column("card", sa.Text, nullable=False, index=True),
    sa.Column("is_right", sa.Boolean, nullable=False),
    sa.Column("correction", sa.Text, nullable=False),
    sa.Column("contradicts", sa.Integer, sa.ForeignKey("feedback.sequence")),
    sa.Column("task_id", sa.Text, sa.ForeignKey("training_tasks.id"), index=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.UniqueConstraint("caller", "idempotency_key", name="uq_feedback_caller_key"),
    sa.Index("ix_feedback_tenant_received", "tenant", "received_at_ms"),
)

task_updates = sa.Table(
    "task_updates",
    metadata,
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("task_id", sa.Text, sa.ForeignKey("training_tasks.id"), nullable=False, index=True),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("progress", sa.Float, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
)

published_cards = sa.Table(
    "published_cards",
    metadata,
    sa.Column("card", sa.Text, primary_key=True),
    sa.Column("task_id", sa.Text, sa.ForeignKey("training_tasks.id"), nullable=False),
    sa.Column("dataset_digest", sa.Text, nullable=False),
    sa.Column("triggers", sa.JSON, nullable=False),
    sa.Column("checked_at_ms", sa.BigInteger, nullable=False),
)


def open_engine(url: str) -> sa.Engine:
    """Opens the database and applies the migrations that it lacks.

    Args:
        url: SQLAlchemy URL. A SQLite file is switched to write-ahead logging, which DBOS in the
            same file profits from too.
    """
    engine = sa.create_engine(url, pool_pre_ping=True)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    _migrate(engine)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # Leaves BEGIN to _begin_sqlite: the driver would begin only at the first write, after reads
    # that another writer may have made stale.
    connection.isolation_level = None
    connection.execute("PRAGMA busy_timeout=30000")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin_sqlite(connection: sa.Connection) -> None:
    reads = connection.get_execution_options().get("reads_only", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _migrate(engine: sa.Engine) -> None:
    # Else every start tells, in three lines, that there was nothing to do.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = alembic.config.Config()
    config.set_main_option("script_location", str(pathlib.Path(__file__).with_name("migrations")))
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            # Factories that start together would make the same tables.
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(20261129, 1)"))
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "head")
