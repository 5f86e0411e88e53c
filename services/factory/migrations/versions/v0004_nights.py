"""Nightly batches, published cards; the night of a task and the trainer that works on it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None
_TEXTS = ("night", "joined_into", "teacher", "trainer")


def upgrade() -> None:
    """Adds the columns and the table; tasks that are there take part in no night."""
    with op.batch_alter_table("training_tasks") as tasks:
        for name in _TEXTS:
            tasks.add_column(sa.Column(name, sa.Text, nullable=False, server_default=""))
        tasks.add_column(sa.Column("place", sa.Integer, nullable=False, server_default="0"))
        tasks.create_index("ix_training_tasks_joined_into", ["joined_into"])
    op.create_table(
        "nights",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("due_ms", sa.BigInteger, nullable=False),
        sa.Column("gathered_at_ms", sa.BigInteger, nullable=False),
        sa.Column("tasks", sa.Integer, nullable=False),
        sa.Column("skills", sa.JSON, nullable=False),
    )
    op.create_table(
        "published_cards",
        sa.Column("card", sa.Text, primary_key=True),
        sa.Column("task_id", sa.Text, sa.ForeignKey("training_tasks.id"), nullable=False),
        sa.Column("dataset_digest", sa.Text, nullable=False),
        sa.Column("triggers", sa.JSON, nullable=False),
        sa.Column("checked_at_ms", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Drops them."""
    op.drop_table("published_cards")
    op.drop_table("nights")
    with op.batch_alter_table("training_tasks") as tasks:
        tasks.drop_index("ix_training_tasks_joined_into")
        for name in (*_TEXTS, "place"):
            tasks.drop_column(name)
