"""Tasks that learn a code base, and the commit that they read."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns; tasks that are there learn no code base."""
    with op.batch_alter_table("training_tasks") as tasks:
        for name in ("repository", "commit_id"):
            tasks.add_column(sa.Column(name, sa.Text, nullable=False, server_default=""))
        tasks.create_index("ix_training_tasks_repository", ["repository"])


def downgrade() -> None:
    """Drops them."""
    with op.batch_alter_table("training_tasks") as tasks:
        tasks.drop_index("ix_training_tasks_repository")
        for name in ("repository", "commit_id"):
            tasks.drop_column(name)
