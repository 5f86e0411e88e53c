"""Single queries on the catalogue's tables, each within a transaction that the caller opened.

Knows the rows; `catalogue` knows which of these belong together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from services.card_store import records, schema
from shared import errors

CARDS, ALIASES, LOG = schema.CARDS, schema.ALIASES, schema.REVISIONS


def check_version_is_free(connection: sa.Connection, name: str, version: str) -> None:
    """Raises AlreadyExistsError where the name has that version."""
    query = sa.select(CARDS.c.digest).where(CARDS.c.name == name, CARDS.c.version == version)
    taken = connection.scalar(query)
    if taken is not None:
        raise errors.AlreadyExistsError(
            f"card {name} has a version {version} with digest {taken}; publish the new content "
            "under a higher version"
        )


def commit_of(connection: sa.Connection, digest: str) -> records.Commit | None:
    """The commit of a card, if there was one."""
    found = card(connection, digest)
    if found is None:
        return None
    published = records.ChangeKind.CARD_PUBLISHED.value
    query = sa.select(LOG.c.revision).where(LOG.c.digest == digest, LOG.c.kind == published)
    return records.Commit(int(connection.scalar(query) or 0), False, found)


def holds(connection: sa.Connection, table: sa.Table, digest: str) -> bool:
    """Whether a table of files has this digest."""
    return connection.scalar(sa.select(sa.true()).where(table.c.digest == digest)) is not None


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
    return records.CardRecord(**row._mapping, aliases=tuple(aliases))


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


def point(connection: sa.Connection, name: str, alias: str, digest: str) -> None:
    """Points an alias to a digest."""
    row = {"name": name, "alias": alias, "digest": digest}
    if target(connection, name, alias) is None:
        connection.execute(ALIASES.insert().values(row))
    else:
        here = sa.and_(ALIASES.c.name == name, ALIASES.c.alias == alias)
        connection.execute(ALIASES.update().where(here).values(row))


def log(
    connection: sa.Connection,
    kind: records.ChangeKind,
    digest: str,
    alias: str = "",
    idempotency_key: str = "",
) -> int:
    """Writes a line of the revision log and returns its number."""
    row = {
        "kind": kind.value,
        "digest": digest,
        "alias": alias,
        "idempotency_key": idempotency_key or None,
    }
    key = connection.execute(LOG.insert().values(row)).inserted_primary_key
    assert key is not None
    return int(key[0])


def find_key(
    connection: sa.Connection, idempotency_key: str, request: tuple[str, str, str]
) -> int | None:
    """The revision made under an idempotency key; refuses a key that another request used."""
    if not idempotency_key:
        return None
    query = sa.select(LOG.c.revision, CARDS.c.name, LOG.c.alias, LOG.c.digest)
    query = query.join(CARDS, CARDS.c.digest == LOG.c.digest)
    row = connection.execute(query.where(LOG.c.idempotency_key == idempotency_key)).one_or_none()
    if row is None:
        return None
    if tuple(row[1:]) != request:
        raise errors.AlreadyExistsError(
            f"idempotency key {idempotency_key!r} belongs to another request; use a new key"
        )
    return int(row.revision)


def head(connection: sa.Connection) -> int:
    """The newest revision, 0 for an empty log."""
    return int(connection.scalar(sa.select(sa.func.max(LOG.c.revision))) or 0)
