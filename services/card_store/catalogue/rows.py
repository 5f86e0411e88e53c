"""Single queries on the catalogue's tables, each within a transaction that the caller opened.

Knows the rows; `catalogue` knows which of these belong together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from services.card_store import records
from services.card_store.catalogue import schema
from shared import errors

CARDS, ALIASES, LOG = schema.CARDS, schema.ALIASES, schema.REVISIONS
_LONGEST_KEY = 255


def check_version_is_free(connection: sa.Connection, name: str, version: str, digest: str) -> None:
    """Raises AlreadyExistsError where the name has that version with another digest."""
    query = sa.select(CARDS.c.digest).where(CARDS.c.name == name, CARDS.c.version == version)
    taken = connection.scalar(query)
    if taken not in (None, digest):
        raise errors.AlreadyExistsError(
            f"card {name} has a version {version} with digest {taken}; publish the new content "
            "under a higher version"
        )


def check_active(card: records.CardRecord | None) -> None:
    """Raises PreconditionError for a card that was deleted or revoked."""
    if card is not None and card.state is not records.CardState.ACTIVE:
        raise errors.PreconditionError(
            f"card {card.name}@{card.digest} was {card.state.value.lower()}; it can't come back, "
            "publish other content under a higher version"
        )


def is_newest(connection: sa.Connection, card: records.CardRecord) -> bool:
    """Whether `latest` of its name points to nothing, or to a lower semantic version."""
    present = target(connection, card.name, records.LATEST)
    if present is None:
        return True
    version = connection.scalar(sa.select(CARDS.c.version).where(CARDS.c.digest == present))
    return version is None or version_key(card.version) > version_key(version)


def commit_of(connection: sa.Connection, digest: str) -> records.Commit | None:
    """The commit of a card, if there was one; its revision is not before the log's beginning."""
    found = card(connection, digest)
    if found is None:
        return None
    published = records.ChangeKind.CARD_PUBLISHED.value
    query = sa.select(LOG.c.revision).where(LOG.c.digest == digest, LOG.c.kind == published)
    revision = connection.scalar(query) or compacted_to(connection)
    return records.Commit(int(revision), False, found)


def holds(connection: sa.Connection, table: sa.Table, digest: str) -> bool:
    """Whether a table of files has this digest."""
    return connection.scalar(sa.select(sa.true()).where(table.c.digest == digest)) is not None


def known(connection: sa.Connection, digests: Iterable[str]) -> set[str]:
    """Those of the digests that are on record, in any state."""
    return set(
        connection.scalars(sa.select(CARDS.c.digest).where(CARDS.c.digest.in_(list(digests))))
    )


def card(connection: sa.Connection, digest: str) -> records.CardRecord | None:
    """The card with this digest, if it is committed."""
    return cards_by_digest(connection, {digest}).get(digest)


def cards_by_digest(connection: sa.Connection, digests: set[str]) -> dict[str, records.CardRecord]:
    """Those of the cards that are committed."""
    found = connection.execute(sa.select(CARDS).where(CARDS.c.digest.in_(digests))).all()
    aliases = aliases_by_digest(connection, digests)
    return {row.digest: to_record(row, aliases.get(row.digest, ())) for row in found}


def to_record(row: sa.Row[Any], aliases: Sequence[str]) -> records.CardRecord:
    """A row of the table of cards as the domain knows it."""
    values = {name: row._mapping[name] for name in CARDS.columns.keys()}  # noqa: SIM118
    values["tenants"] = tuple(filter(None, row.tenants.split("|")))
    values["state"] = records.CardState(row.state)
    return records.CardRecord(**values, aliases=tuple(aliases))


def of_record(card: records.CardRecord) -> dict[str, Any]:
    """The row of a card."""
    values = {column.name: getattr(card, column.name) for column in CARDS.columns}
    values["tenants"] = "".join(f"|{tenant}" for tenant in card.tenants) + "|" * bool(card.tenants)
    values["state"] = card.state.value
    return values


def version_key(version: str) -> tuple[int, ...]:
    """Orders semantic versions of three numbers."""
    return tuple(int(part) for part in version.split("."))


def aliases_by_digest(connection: sa.Connection, digests: set[str] | None) -> dict[str, list[str]]:
    """Digest to its aliases, sorted; of every card for None."""
    query = sa.select(ALIASES.c.digest, ALIASES.c.alias).order_by(ALIASES.c.alias)
    if digests is not None:
        query = query.where(ALIASES.c.digest.in_(digests))
    found: dict[str, list[str]] = {}
    for digest, alias in connection.execute(query):
        found.setdefault(digest, []).append(alias)
    return found


def target(connection: sa.Connection, name: str, alias: str) -> str | None:
    """The digest that an alias points to."""
    query = sa.select(ALIASES.c.digest).where(ALIASES.c.name == name, ALIASES.c.alias == alias)
    return connection.scalar(query)


def point(
    connection: sa.Connection,
    name: str,
    alias: str,
    digest: str,
    revision: int,
    at_ms: int,
    stands_for: int | None = None,
) -> None:
    """Points an alias to a digest and writes it into the alias's history.

    Args:
        connection: of a transaction that writes.
        name: of the card.
        alias: of that name.
        digest: of the card.
        revision: the line of the log that tells of the move.
        at_ms: Unix time.
        stands_for: the earlier move that it goes back to.
    """
    row = {"name": name, "alias": alias, "digest": digest}
    history = {"revision": revision, "at_ms": at_ms, "stands_for": stands_for or revision}
    connection.execute(schema.ALIAS_MOVES.insert().values(row | history))
    if target(connection, name, alias) is None:
        connection.execute(ALIASES.insert().values(row))
    else:
        here = sa.and_(ALIASES.c.name == name, ALIASES.c.alias == alias)
        connection.execute(ALIASES.update().where(here).values(row))


def log(
    connection: sa.Connection,
    kind: records.ChangeKind,
    digest: str | None,
    alias: str = "",
    idempotency_key: str = "",
    key_id: str = "",
    at_ms: int = 0,
) -> int:
    """Writes a line of the revision log and returns its number."""
    row = {
        "kind": kind.value,
        "digest": digest,
        "alias": alias,
        "idempotency_key": idempotency_key or None,
        "key_id": key_id,
        "at_ms": at_ms,
    }
    key = connection.execute(LOG.insert().values(row)).inserted_primary_key
    assert key is not None
    return int(key[0])


def find_key(
    connection: sa.Connection, idempotency_key: str, request: tuple[str, str, str | None]
) -> int | None:
    """The revision made under an idempotency key; refuses a key that another request used.

    Args:
        connection: any.
        idempotency_key: empty for none.
        request: name, alias and digest; None for a digest that the request did not choose.
    """
    if not idempotency_key:
        return None
    if len(idempotency_key) > _LONGEST_KEY:
        # Some databases would refuse it only where it is written, and some would keep any length.
        raise errors.InvalidInputError(
            f"idempotency key {idempotency_key[:40]!r} has {len(idempotency_key)} characters; at "
            f"most {_LONGEST_KEY}"
        )
    query = sa.select(LOG.c.revision, CARDS.c.name, LOG.c.alias, LOG.c.digest)
    query = query.join(CARDS, CARDS.c.digest == LOG.c.digest)
    row = connection.execute(query.where(LOG.c.idempotency_key == idempotency_key)).one_or_none()
    if row is None:
        return None
    if tuple(row[1:3]) != request[:2] or request[2] not in (None, row.digest):
        raise errors.AlreadyExistsError(
            f"idempotency key {idempotency_key!r} belongs to another request; use a new key"
        )
    return int(row.revision)


def head(connection: sa.Connection) -> int:
    """The newest revision, 0 before the first."""
    newest = connection.scalar(sa.select(sa.func.max(LOG.c.revision)))
    return int(newest or compacted_to(connection))


def compacted_to(connection: sa.Connection) -> int:
    """The newest revision whose line is gone; 0 while all are there."""
    return int(connection.scalar(sa.select(schema.STORE.c.compacted_to)) or 0)
