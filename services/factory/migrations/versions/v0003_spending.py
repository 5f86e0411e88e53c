"""What the teachers of a task cost."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column; of earlier tasks nothing is known."""
    with op.batch_alter_table("training_tasks") as tasks:
        tasks.add_column(sa.Column("spent", sa.JSON, nullable=False, server_default="{}"))


def downgrade() -> None:
    """Drops it."""
    with op.batch_alter_table("training_tasks") as tasks:
        tasks.drop_column("spent")
