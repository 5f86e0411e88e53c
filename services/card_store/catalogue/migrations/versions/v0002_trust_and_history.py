"""Signatures, tenants, tombstones and origins of cards; history of aliases; search; compaction."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _card_columns() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("signature_json", sa.Text, nullable=False, server_default=""),
        sa.Column("signer", sa.String(64), nullable=False, server_default=""),
        sa.Column("tenants", sa.Text, nullable=False, server_default=""),
        sa.Column("state", sa.String(16), nullable=False, server_default="ACTIVE"),
        sa.Column("origin", sa.String(32), nullable=False, server_default=""),
        sa.Column("remote", sa.Boolean, nullable=False, server_default=sa.false()),
    )


def upgrade() -> None:
    """Adds them; cards that are there are active, unsigned and everybody's."""
    # In place: a table that others refer to can't be copied and dropped once it has rows.
    for column in _card_columns():
        op.add_column("cards", column)
    op.create_index("ix_cards_listing", "cards", ["name", "created_at_ms", "digest"])
    op.create_index("ix_cards_domain", "cards", ["domain"])
    op.create_index("ix_cards_signer", "cards", ["signer"])
    with op.batch_alter_table(
        "revisions", table_kwargs={"sqlite_autoincrement": True}
    ) as revisions:
        # The revocation of a key concerns no single card.
        revisions.alter_column("digest", existing_type=sa.String(64), nullable=True)
        revisions.add_column(sa.Column("key_id", sa.String(64), nullable=False, server_default=""))
        revisions.add_column(sa.Column("at_ms", sa.BigInteger, nullable=False, server_default="0"))
    with op.batch_alter_table("store") as store:
        store.add_column(
            sa.Column("compacted_to", sa.BigInteger, nullable=False, server_default="0")
        )
    moves = op.create_table(
        "alias_moves",
        sa.Column("revision", sa.BigInteger, primary_key=True),
        sa.Column("name", sa.String(63), primary_key=True),
        sa.Column("alias", sa.String(63), primary_key=True),
        sa.Column("digest", sa.String(64), sa.ForeignKey("cards.digest"), nullable=False),
        sa.Column("stands_for", sa.BigInteger, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_alias_moves_alias", "alias_moves", ["name", "alias", "revision"])
    op.create_table(
        "revoked_keys",
        sa.Column("key_id", sa.String(64), primary_key=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "peers",
        sa.Column("store_id", sa.String(32), primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("control", sa.Text, nullable=False),
    )
    _fill_history(moves)
    if op.get_bind().dialect.name == "sqlite":
        op.execute("CREATE VIRTUAL TABLE card_words USING fts5(digest UNINDEXED, words)")
        op.execute(
            "INSERT INTO card_words (digest, words) "
            "SELECT digest, name || ' ' || domain || ' ' || description || ' ' || coalesce("
            "CASE WHEN json_valid(manifest_json) "
            "THEN json_extract(manifest_json, '$.routing.examples') END, '') FROM cards"
        )


def _fill_history(moves: sa.Table) -> None:
    """What the revision log knows of aliases so far."""
    bind = op.get_bind()
    rows = bind.execute(
        sa.text(
            "SELECT r.revision, c.name, r.kind, r.alias, r.digest FROM revisions r "
            "JOIN cards c ON c.digest = r.digest"
        )
    ).all()
    found = [
        {
            "revision": row.revision,
            "name": row.name,
            "alias": row.alias or "latest",
            "digest": row.digest,
            "stands_for": row.revision,
            "at_ms": 0,
        }
        for row in rows
    ]
    if found:
        op.bulk_insert(moves, found)


def downgrade() -> None:
    """Goes back; history, revocations and tombstones are lost."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TABLE card_words")
    for table in ("peers", "revoked_keys", "alias_moves"):
        op.drop_table(table)
    op.execute("DELETE FROM revisions WHERE digest IS NULL")
    with op.batch_alter_table("store") as store:
        store.drop_column("compacted_to")
    with op.batch_alter_table(
        "revisions", table_kwargs={"sqlite_autoincrement": True}
    ) as revisions:
        revisions.drop_column("at_ms")
        revisions.drop_column("key_id")
        revisions.alter_column("digest", existing_type=sa.String(64), nullable=False)
    for index in ("ix_cards_listing", "ix_cards_domain", "ix_cards_signer"):
        op.drop_index(index, "cards")
    for column in _card_columns():
        op.drop_column("cards", column.name)
