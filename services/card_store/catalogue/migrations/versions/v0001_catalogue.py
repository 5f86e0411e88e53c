"""The first catalogue: cards, datasets, aliases and the revision log."""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the tables and gives the store its identity."""
    store = op.create_table(
        "store",
        sa.Column("store_id", sa.String(32), primary_key=True),
    )
    op.bulk_insert(store, [{"store_id": uuid.uuid4().hex[:12]}])
    op.create_table(
        "cards",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("domain", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("base_fingerprint", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("manifest_json", sa.Text, nullable=False),
        sa.UniqueConstraint("name", "version", name="one_digest_per_version"),
    )
    op.create_table(
        "datasets",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "aliases",
        sa.Column("name", sa.String(63), primary_key=True),
        sa.Column("alias", sa.String(63), primary_key=True),
        sa.Column("digest", sa.String(64), sa.ForeignKey("cards.digest"), nullable=False),
    )
    op.create_index("ix_aliases_digest", "aliases", ["digest"])
    op.create_table(
        "revisions",
        sa.Column(
            "revision",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("digest", sa.String(64), sa.ForeignKey("cards.digest"), nullable=False),
        sa.Column("alias", sa.String(63), nullable=False),
        sa.Column("idempotency_key", sa.String(255), unique=True),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_revisions_digest", "revisions", ["digest"])


def downgrade() -> None:
    """Drops everything."""
    for table in ("revisions", "aliases", "datasets", "cards", "store"):
        op.drop_table(table)
