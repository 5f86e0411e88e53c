"""Snapshots beside datasets."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """What is there is a dataset."""
    kind = sa.Column("kind", sa.String(16), nullable=False, server_default="dataset")
    op.add_column("datasets", kind)


def downgrade() -> None:
    """Goes back; snapshots are forgotten."""
    op.execute("DELETE FROM datasets WHERE kind <> 'dataset'")
    op.drop_column("datasets", "kind")
