"""The trace of the question that caused a task."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column; tasks that are there belong to no trace."""
    with op.batch_alter_table("training_tasks") as tasks:
        tasks.add_column(sa.Column("traceparent", sa.Text, nullable=False, server_default=""))


def downgrade() -> None:
    """Drops it."""
    with op.batch_alter_table("training_tasks") as tasks:
        tasks.drop_column("traceparent")
