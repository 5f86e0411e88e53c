"""Alembic's entry: applies the migrations on the connection that `tables` hands over."""

from __future__ import annotations

import alembic.context

# A version table of its own: the card store's catalogue may live in the same database.
alembic.context.configure(
    connection=alembic.context.config.attributes["connection"], version_table="factory_version"
)
with alembic.context.begin_transaction():
    alembic.context.run_migrations()
