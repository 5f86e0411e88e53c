"""One open database of the catalogue: transactions that read or write, and typed errors.

Knows nothing of tables; `catalogue`, `aliases` and `retirement` bring their queries.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import sqlalchemy as sa

from services.card_store.catalogue import schema
from shared import errors


class Database:
    """Opens transactions."""

    def __init__(self, engine: sa.Engine) -> None:
        """Takes an engine of `schema.open_database` or `schema.open_read_only`."""
        self.engine = engine
        self._writing_engine = schema.writing(engine)

    @property
    def may_be_shared(self) -> bool:
        """Whether stores on other machines may write to it, too."""
        return self.engine.dialect.name != "sqlite"

    def close(self) -> None:
        """Closes every connection."""
        self.engine.dispose()

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state of the database."""
        with _typed_errors(), self.engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that nobody else's writing comes between.

        Otherwise two of them could end in another order than that of their revisions, and whoever
        reads the log between would pass over the earlier one for ever.
        """
        with _typed_errors(), self._writing_engine.begin() as connection:
            # SQLite locks the whole database at the beginning; others lock this row.
            connection.execute(sa.select(schema.STORE.c.store_id).with_for_update())
            yield connection


@contextlib.contextmanager
def _typed_errors() -> Iterator[None]:
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        # What the caller did wrong was checked before: here another writer came first, the disk
        # is full, the database is away or not made yet, and each of these can pass.
        reason = getattr(error, "orig", None) or error
        raise errors.UnavailableError(
            f"the card store's catalogue can't be used now: {reason}; is the control process "
            "running and is there space on the disk? Try again"
        ) from error
