"""What nodes said last, for stores that share a database."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the table; nodes report within seconds."""
    op.create_table(
        "nodes",
        sa.Column("node_id", sa.String(200), primary_key=True),
        sa.Column("report", sa.Text, nullable=False),
        sa.Column("reported_at_ms", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Drops it."""
    op.drop_table("nodes")
