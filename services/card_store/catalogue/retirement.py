"""Takes cards out of service: deletion with a tombstone, revocation of a card or of a key.

A record is never erased, so that its digest can't come back. Aliases of a retired card go back to
the version before it. Calls block: use a thread.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from services.card_store import records
from services.card_store.catalogue import aliases, database, rows, schema
from shared import errors

_CARDS, _ALIASES, _KEYS = rows.CARDS, rows.ALIASES, schema.REVOKED_KEYS


class Retirement:
    """What leaves one catalogue."""

    def __init__(self, opened: database.Database, clock_ms: Callable[[], int]) -> None:
        """Takes the database and Unix time in milliseconds."""
        self._database, self._clock_ms = opened, clock_ms

    def delete(self, digest: str) -> records.Retired:
        """Takes a card out of service; one that is out already stays as it is.

        Raises:
            errors.NotFoundError: there is no such card.
        """
        with self._database.write() as connection:
            self._known(connection, digest)
            changes = self._retire(connection, digest, records.CardState.DELETED)
            return _retired(connection, (digest,), changes)

    def revoke_card(self, digest: str) -> records.Retired:
        """Declares a card not to be trusted any more, deleted or not.

        Raises:
            errors.NotFoundError: there is no such card.
        """
        with self._database.write() as connection:
            self._known(connection, digest)
            changes = self._retire(connection, digest, records.CardState.REVOKED)
            return _retired(connection, (digest,), changes)

    def revoke_key(self, key_id: str, reason: str) -> records.Retired:
        """Declares every card of a key, there or still to come, not to be trusted any more.

        Raises:
            errors.InvalidInputError: there is no key id.
        """
        if not key_id:
            raise errors.InvalidInputError("a revocation names a digest or a key_id")
        with self._database.write() as connection:
            if is_revoked(connection, key_id):
                return _retired(connection, (), [])
            now_ms = self._clock_ms()
            connection.execute(_KEYS.insert().values(key_id=key_id, reason=reason, at_ms=now_ms))
            kind = records.ChangeKind.KEY_REVOKED
            revision = rows.log(connection, kind, None, key_id=key_id, at_ms=now_ms)
            changes = [records.Change(kind, revision, key_id=key_id)]
            signed = sa.select(_CARDS.c.digest).where(_CARDS.c.signer == key_id)
            digests = tuple(connection.scalars(signed.order_by(_CARDS.c.digest)))
            for digest in digests:
                changes += self._retire(connection, digest, records.CardState.REVOKED)
            return _retired(connection, digests, changes)

    def revoked_keys(self) -> dict[str, str]:
        """Key id to the reason."""
        with self._database.read() as connection:
            return revoked_keys(connection)

    def origins(self, key_id: str) -> set[str]:
        """Ids of the stores where cards of a key were committed first; empty: here."""
        query = sa.select(_CARDS.c.origin).where(_CARDS.c.signer == key_id).distinct()
        with self._database.read() as connection:
            return set(connection.scalars(query))

    def _known(self, connection: sa.Connection, digest: str) -> None:
        if rows.card(connection, digest) is None:
            raise errors.NotFoundError(f"the card store knows no card with digest {digest}")

    def _retire(
        self, connection: sa.Connection, digest: str, state: records.CardState
    ) -> list[records.Change]:
        record = rows.card(connection, digest)
        assert record is not None
        if record.state in (state, records.CardState.REVOKED):
            return []
        here = _CARDS.c.digest == digest
        connection.execute(_CARDS.update().where(here).values(state=state.value))
        kind = records.ChangeKind[f"CARD_{state.value}"]
        now_ms = self._clock_ms()
        revision = rows.log(connection, kind, digest, at_ms=now_ms)
        moved = [self._freed(connection, record.name, alias, now_ms) for alias in record.aliases]
        gone = records.Change(kind, revision, rows.card(connection, digest))
        return [gone, *(change for change in moved if change is not None)]

    def _freed(
        self, connection: sa.Connection, name: str, alias: str, now_ms: int
    ) -> records.Change | None:
        """Moves an alias from a retired card to the one before it; removes it if there is none."""
        back = aliases.before(connection, name, alias)
        if back is None and alias == records.LATEST:
            back = _newest_active(connection, name)
        if back is None:
            here = sa.and_(_ALIASES.c.name == name, _ALIASES.c.alias == alias)
            connection.execute(_ALIASES.delete().where(here))
            return None
        stands_for, record = back
        kind = records.ChangeKind.ALIAS_MOVED
        revision = rows.log(connection, kind, record.digest, alias, at_ms=now_ms)
        rows.point(connection, name, alias, record.digest, revision, now_ms, stands_for or revision)
        return records.Change(kind, revision, rows.card(connection, record.digest), alias)


def revoked_keys(connection: sa.Connection) -> dict[str, str]:
    """Key id to the reason."""
    return {row.key_id: row.reason for row in connection.execute(sa.select(_KEYS))}


def is_revoked(connection: sa.Connection, key_id: str) -> bool:
    """Whether a key was revoked here."""
    query = sa.select(sa.true()).where(_KEYS.c.key_id == key_id)
    return connection.scalar(query) is not None


def _newest_active(connection: sa.Connection, name: str) -> tuple[int, records.CardRecord] | None:
    """The active version of the highest number; its move stands for itself."""
    query = sa.select(_CARDS.c.digest, _CARDS.c.version).where(
        _CARDS.c.name == name, _CARDS.c.state == records.CardState.ACTIVE.value
    )
    found = connection.execute(query).all()
    if not found:
        return None
    newest = max(found, key=lambda row: rows.version_key(row.version))
    record = rows.card(connection, newest.digest)
    assert record is not None
    return 0, record


def _retired(
    connection: sa.Connection, digests: tuple[str, ...], changes: list[records.Change]
) -> records.Retired:
    return records.Retired(rows.head(connection), digests, tuple(changes))
