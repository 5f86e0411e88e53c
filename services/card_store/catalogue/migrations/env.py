"""Alembic's entry: runs the migrations on the connection that `schema.migrate` opened.

Alembic executes this file as a script, which is why it works at import.
"""

from __future__ import annotations

import alembic.context

from services.card_store.catalogue import schema

alembic.context.configure(
    connection=alembic.context.config.attributes["connection"],
    target_metadata=schema.METADATA,
    # SQLite can alter hardly anything in place.
    render_as_batch=True,
)
with alembic.context.begin_transaction():
    alembic.context.run_migrations()
