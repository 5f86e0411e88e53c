"""Which factories of a shared database live: each holds a lock there for as long as it does.

The lock of a process that was killed goes with its connection, at once; that of a machine that is
gone goes when the server misses it, some ten seconds later. No clock is compared with another.
Knows nothing about tasks and workflows. Blocking; one thread at a time.
"""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterable
from typing import Protocol

import sqlalchemy as sa

from shared import errors

ALONE = "factory"
"""The name of a factory whose database is a file of its own: whoever opens it is the one."""
_SEED = 20_261_129
"""Keeps our locks apart from those of others in the same database."""
_LEADER = "leader"
_TIMEOUT_S = 5
_KEEPALIVES = (
    # Of the server, which otherwise misses a machine that is gone after two hours.
    "SET tcp_keepalives_idle = 4",
    "SET tcp_keepalives_interval = 2",
    "SET tcp_keepalives_count = 3",
)
_TAKE = sa.text("SELECT pg_try_advisory_lock(hashtextextended(:name, :seed))")
# A lock of the transaction, which ends with the statement: only to see whether it is free.
_IS_FREE = sa.text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, :seed))")


class Presence(Protocol):
    """How one factory sees the others."""

    name: str

    def hold(self) -> bool:
        """Says that this one lives; whether that was so ever since it was last said.

        Raises:
            errors.UnavailableError: the database is away, and whoever reaches it may take this one
                for gone.
        """

    def gone(self, names: Iterable[str]) -> list[str]:
        """Those of some factories that live no more."""

    def lead(self) -> bool:
        """Whether this one does what one alone should do."""

    def close(self) -> None:
        """Leaves: the others see it at once."""


class Alone:
    """Of a factory that nobody shares a database with."""

    name = ALONE

    def hold(self) -> bool:
        """It lives."""
        return True

    def gone(self, names: Iterable[str]) -> list[str]:
        """Nobody was there."""
        return []

    def lead(self) -> bool:
        """Who else."""
        return True

    def close(self) -> None:
        """Nobody sees it."""


class Shared:
    """Of one of several factories on one PostgreSQL database.

    Its locks belong to a session: between it and the server no pooler may stand that hands a
    session's transactions to different connections.
    """

    def __init__(self, url: str) -> None:
        """Takes the database; nothing is opened yet.

        Args:
            url: SQLAlchemy URL.
        """
        self.name = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        self._engine = sa.create_engine(
            url,
            poolclass=sa.NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args={
                "connect_timeout": _TIMEOUT_S,
                "tcp_user_timeout": _TIMEOUT_S * 1000,
            },
        )
        self._connection: sa.Connection | None = None
        self._leads = False

    def hold(self) -> bool:
        """Keeps the lock, or takes it anew; see `Presence`."""
        try:
            if self._connection is not None:
                self._connection.execute(sa.text("SELECT 1"))
                return True
            connection = self._engine.connect()
            try:
                for setting in _KEEPALIVES:
                    connection.execute(sa.text(setting))
                is_ours = self._ask(connection, _TAKE, self.name)
            except BaseException:
                connection.close()
                raise
        except sa.exc.DBAPIError as error:
            self.close()
            raise errors.UnavailableError(
                f"factory.database_url: the database is away: {error.orig}"
            ) from error
        if not is_ours:
            connection.close()
            raise errors.UnavailableError("the database still holds the lock of a lost connection")
        self._connection = connection
        return False

    def gone(self, names: Iterable[str]) -> list[str]:
        """Those whose lock is free; see `Presence`."""
        others = [name for name in names if name != self.name]
        connection = self._connection
        if connection is None:
            return []
        return [name for name in others if self._ask(connection, _IS_FREE, name)]

    def lead(self) -> bool:
        """The first one that asks leads until it leaves."""
        if not self._leads and self._connection is not None:
            self._leads = self._ask(self._connection, _TAKE, _LEADER)
        return self._leads

    def close(self) -> None:
        """Gives all locks back with the connection."""
        connection, self._connection, self._leads = self._connection, None, False
        if connection is not None:
            connection.invalidate()
            connection.close()

    @staticmethod
    def _ask(connection: sa.Connection, question: sa.TextClause, name: str) -> bool:
        return bool(connection.scalar(question, {"name": name, "seed": _SEED}))


def of(url: str) -> Presence:
    """The presence of a factory on the database of a SQLAlchemy URL."""
    return Shared(url) if sa.make_url(url).get_backend_name() == "postgresql" else Alone()
