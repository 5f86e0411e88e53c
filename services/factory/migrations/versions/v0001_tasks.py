"""Tasks, open gaps, dissonance events and task updates."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the four tables."""
    op.create_table(
        "training_tasks",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("trigger_query", sa.Text, nullable=False),
        sa.Column("other_queries", sa.JSON, nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
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
        sa.Column("idempotency_key", sa.Text, unique=True),
    )
    op.create_table(
        "open_gaps",
        sa.Column("gap_key", sa.Text, primary_key=True),
        _task_id(),
    )
    op.create_table(
        "dissonance_events",
        sa.Column("event_id", sa.Text, primary_key=True),
        _task_id(),
        sa.Column("query", sa.Text, nullable=False),
        sa.Column("confidence", sa.Float, nullable=False),
        sa.Column("detected_at_ms", sa.BigInteger, nullable=False),
        sa.Column("received_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "task_updates",
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=True),
        _task_id(),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("progress", sa.Float, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )


def downgrade() -> None:
    """Drops them."""
    for table in ("task_updates", "dissonance_events", "open_gaps", "training_tasks"):
        op.drop_table(table)


def _task_id() -> sa.Column[str]:
    key = sa.ForeignKey("training_tasks.id")
    return sa.Column("task_id", sa.Text, key, nullable=False, index=True)
