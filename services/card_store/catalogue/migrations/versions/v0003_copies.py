"""Which peers have which cards, and where their bytes are served."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds them; peers tell again which cards they have only when their logs are read anew."""
    op.create_table(
        "copies",
        sa.Column("digest", sa.String(64), sa.ForeignKey("cards.digest"), primary_key=True),
        sa.Column("store_id", sa.String(32), primary_key=True),
        sa.Column("held", sa.Boolean, nullable=False),
        sa.Column("gave", sa.Boolean, nullable=False),
    )
    with op.batch_alter_table("peers") as peers:
        peers.add_column(sa.Column("flight", sa.Text, nullable=False, server_default=""))


def downgrade() -> None:
    """Goes back."""
    with op.batch_alter_table("peers") as peers:
        peers.drop_column("flight")
    op.drop_table("copies")
