"""What users say of answers, and the corrections that tasks learn."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the table and the column; tasks that are there learn no corrections."""
    with op.batch_alter_table("training_tasks") as tasks:
        tasks.add_column(sa.Column("corrections", sa.JSON, nullable=False, server_default="[]"))
    op.create_table(
        "feedback",
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
    )
    op.create_index("ix_feedback_tenant_received", "feedback", ["tenant", "received_at_ms"])


def downgrade() -> None:
    """Drops them."""
    op.drop_table("feedback")
    with op.batch_alter_table("training_tasks") as tasks:
        tasks.drop_column("corrections")
