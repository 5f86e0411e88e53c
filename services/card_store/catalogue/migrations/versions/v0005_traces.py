"""The trace in which a card was committed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column; cards that are there belong to no trace."""
    op.add_column("cards", sa.Column("traceparent", sa.Text, nullable=False, server_default=""))


def downgrade() -> None:
    """Drops it."""
    op.drop_column("cards", "traceparent")
