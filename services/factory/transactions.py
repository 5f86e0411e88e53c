"""The factory's own database: one transaction at a time, repeated where writers met."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import sqlalchemy as sa

from services.factory import tables
from shared import errors

T = TypeVar("T")

_ATTEMPTS = 3
_DEADLOCK = "40P01"
_EXCLUSIVE = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 20261129))")


class Database:
    """Blocking access to the tables; `board` calls it off the event loop."""

    def __init__(self, url: str) -> None:
        """Opens the database and brings its tables up to date.

        Args:
            url: SQLAlchemy URL.
        """
        self._engine = tables.open_engine(url)

    @property
    def may_be_shared(self) -> bool:
        """Whether factories on other machines may write to it, too."""
        return self._engine.dialect.name != "sqlite"

    def close(self) -> None:
        """Closes the connections."""
        self._engine.dispose()

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Does work that writes, as one transaction; it may run again."""
        for attempt in range(_ATTEMPTS):
            try:
                with self._engine.begin() as connection:
                    return work(connection)
            except sa.exc.IntegrityError:
                # PostgreSQL lets two writers look for an open gap at the same time; the slower
                # one meets the primary key, and finds the task when it looks again.
                if attempt == _ATTEMPTS - 1:
                    raise
            except sa.exc.OperationalError as error:
                # Two writers that wait for each other: one of them is asked to begin again.
                is_deadlock = getattr(error.orig, "sqlstate", None) == _DEADLOCK
                if not is_deadlock or attempt == _ATTEMPTS - 1:
                    raise
        raise errors.InternalError("unreachable: the last attempt returns or raises")

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection for reading."""
        with self._engine.connect().execution_options(reads_only=True) as connection:
            yield connection


def exclude_others(connection: sa.Connection, what: str) -> None:
    """Lets one factory after the other do something, until the end of the transaction.

    Args:
        connection: of the transaction. SQLite's have one writer at a time anyway.
        what: is done.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_EXCLUSIVE, {"name": what})
