"""Events that lead to no task and say why, their signals; tasks with tenant, demand, budget."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns; tasks that are there have started."""
    with op.batch_alter_table("training_tasks") as tasks:
        tasks.add_column(_text("tenant"))
        tasks.add_column(sa.Column("demand", sa.Integer, nullable=False, server_default="1"))
        tasks.add_column(
            sa.Column("admitted_at_ms", sa.BigInteger, nullable=False, server_default="0")
        )
        tasks.create_index("ix_training_tasks_admitted_at_ms", ["admitted_at_ms"])
    op.execute("UPDATE training_tasks SET admitted_at_ms = created_at_ms")
    with op.batch_alter_table("dissonance_events") as events:
        events.alter_column("task_id", existing_type=sa.Text, nullable=True)
        events.add_column(_text("reason"))
        events.add_column(sa.Column("signals", sa.JSON))
        events.add_column(_text("domain"))
        events.add_column(_text("tenant"))


def downgrade() -> None:
    """Drops them, and the events that led to no task."""
    op.execute("DELETE FROM dissonance_events WHERE task_id IS NULL")
    with op.batch_alter_table("dissonance_events") as events:
        for name in ("reason", "signals", "domain", "tenant"):
            events.drop_column(name)
        events.alter_column("task_id", existing_type=sa.Text, nullable=False)
    with op.batch_alter_table("training_tasks") as tasks:
        tasks.drop_index("ix_training_tasks_admitted_at_ms")
        for name in ("tenant", "demand", "admitted_at_ms"):
            tasks.drop_column(name)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, server_default="")
