"""Aliases of cards: where they point, where they pointed, and the way back.

Every move is one transaction with its line in the revision log. Calls block: use a thread.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import sqlalchemy as sa

from services.card_store import records
from services.card_store.catalogue import database, rows, schema
from shared import errors
from shared.cards import manifest as manifests

_MOVES = schema.ALIAS_MOVES


class Aliases:
    """The aliases of one catalogue."""

    def __init__(self, opened: database.Database, clock_ms: Callable[[], int]) -> None:
        """Takes the database and Unix time in milliseconds."""
        self._database, self._clock_ms = opened, clock_ms

    def set(
        self, name: str, alias: str, digest: str, idempotency_key: str = ""
    ) -> records.AliasMove:
        """Points an alias of a card's name to one of its digests.

        Args:
            name: the card's name.
            alias: such as `production`; lower-case letters, digits and dashes.
            digest: an active card of that name.
            idempotency_key: a request that comes again under its key moves nothing, even if
                somebody moved the alias elsewhere meanwhile; empty for none.

        Raises:
            errors.InvalidInputError: the alias is malformed.
            errors.NotFoundError: the name has no such card.
            errors.PreconditionError: the card was deleted or revoked.
            errors.AlreadyExistsError: the key belongs to another request.
        """
        if not re.fullmatch(manifests.NAME_PATTERN, alias):
            raise errors.InvalidInputError(
                f"alias {alias!r}: expected 1 to 63 lower-case letters, digits and dashes"
            )
        with self._database.write() as connection:
            record = rows.card(connection, digest)
            if record is None or record.name != name:
                raise errors.NotFoundError(f"the card store knows no card {name}@{digest}")
            earlier = rows.find_key(connection, idempotency_key, (name, alias, digest))
            if earlier is not None:
                return records.AliasMove(record, earlier, False)
            if record.state is not records.CardState.ACTIVE:
                raise errors.PreconditionError(
                    f"card {name}@{digest} is {record.state.value}; an alias needs an active one"
                )
            if rows.target(connection, name, alias) == digest:
                return records.AliasMove(record, rows.head(connection), False)
            return self._moved(connection, record, alias, idempotency_key)

    def roll_back(self, name: str, alias: str, idempotency_key: str = "") -> records.AliasMove:
        """Moves an alias to where it pointed before; asked again, one step further.

        Versions that were deleted or revoked since are passed over.

        Raises:
            errors.NotFoundError: there is no such alias.
            errors.PreconditionError: it never pointed to another card that is still active.
            errors.AlreadyExistsError: the key belongs to another request.
        """
        with self._database.write() as connection:
            earlier = rows.find_key(connection, idempotency_key, (name, alias, None))
            pointing = rows.target(connection, name, alias)
            if pointing is None:
                raise errors.NotFoundError(f"card {name!r} has no alias {alias!r}")
            if earlier is not None:
                record = rows.card(connection, pointing)
                assert record is not None
                return records.AliasMove(record, earlier, False)
            back = before(connection, name, alias)
            if back is None:
                raise errors.PreconditionError(
                    f"alias {name}@{alias} never pointed to another card that is still active; "
                    "there is nothing to go back to"
                )
            stands_for, record = back
            return self._moved(connection, record, alias, idempotency_key, stands_for)

    def history(self, name: str, alias: str) -> list[records.PastMove]:
        """Every move of an alias, newest first."""
        query = sa.select(_MOVES).where(_MOVES.c.name == name, _MOVES.c.alias == alias)
        with self._database.read() as connection:
            found = connection.execute(query.order_by(_MOVES.c.revision.desc())).all()
        return [records.PastMove(row.revision, row.digest, row.at_ms) for row in found]

    def _moved(
        self,
        connection: sa.Connection,
        record: records.CardRecord,
        alias: str,
        idempotency_key: str,
        stands_for: int | None = None,
    ) -> records.AliasMove:
        now_ms = self._clock_ms()
        kind = records.ChangeKind.ALIAS_MOVED
        revision = rows.log(connection, kind, record.digest, alias, idempotency_key, at_ms=now_ms)
        rows.point(connection, record.name, alias, record.digest, revision, now_ms, stands_for)
        moved = rows.card(connection, record.digest)
        assert moved is not None
        return records.AliasMove(moved, revision, True)


def before(
    connection: sa.Connection, name: str, alias: str
) -> tuple[int, records.CardRecord] | None:
    """The move that an alias goes back to, and its card; None where there is none.

    A move that went back puts the alias where an earlier one had put it, so that what it went
    back from is out of the way for good.
    """
    here = sa.and_(_MOVES.c.name == name, _MOVES.c.alias == alias)
    newest_first = sa.select(_MOVES).where(here).order_by(_MOVES.c.revision.desc())
    latest = connection.execute(newest_first.limit(1)).one_or_none()
    if latest is None:
        return None
    stands_for = latest.stands_for
    for row in connection.execute(newest_first.where(_MOVES.c.revision < stands_for)):
        if row.revision >= stands_for:
            continue
        stands_for = row.stands_for
        record = None if row.digest == latest.digest else rows.card(connection, row.digest)
        if record is not None and record.state is records.CardState.ACTIVE:
            return int(stands_for), record
    return None
