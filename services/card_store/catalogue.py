"""The catalogue: which cards and datasets are committed, where aliases point, what changed when.

Every mutation is one transaction and safe to repeat. Calls block on the database: use a thread.
Knows nothing of files; `store` brings both together.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import sqlalchemy as sa

from services.card_store import records, rows, schema
from shared import errors
from shared.cards import manifest as manifests

_CARDS, _ALIASES, _LOG = rows.CARDS, rows.ALIASES, rows.LOG


class Catalogue:
    """One open catalogue."""

    def __init__(self, engine: sa.Engine) -> None:
        """Takes an engine of `schema.open_database` or `schema.open_read_only`."""
        self._engine = engine
        self._writing_engine = schema.writing(engine)

    def migrate(self) -> None:
        """Brings the tables up to date; only the control plane does this."""
        schema.migrate(self._engine)

    def close(self) -> None:
        """Closes every connection."""
        self._engine.dispose()

    def store_id(self) -> str:
        """The store's identity, made with its catalogue."""
        with self._read() as connection:
            return str(connection.scalar(sa.select(schema.STORE.c.store_id)))

    def add_card(self, card: records.CardRecord) -> records.Commit:
        """Puts a card on record and moves the alias `latest` of its name to it.

        Args:
            card: its aliases are ignored.

        Raises:
            errors.AlreadyExistsError: the name has that version with another digest.
        """
        with self._write() as connection:
            known = rows.commit_of(connection, card.digest)
            if known is not None:
                return known
            rows.check_version_is_free(connection, card.name, card.version)
            values = {column.name: getattr(card, column.name) for column in _CARDS.columns}
            connection.execute(_CARDS.insert().values(values))
            rows.point(connection, card.name, records.LATEST, card.digest)
            revision = rows.log(connection, records.ChangeKind.CARD_PUBLISHED, card.digest)
            return records.Commit(revision, True, rows.card(connection, card.digest))

    def check_version_is_free(self, name: str, version: str) -> None:
        """Raises what `add_card` would, before any work is done for a card.

        Raises:
            errors.AlreadyExistsError: the name has that version.
        """
        with self._read() as connection:
            rows.check_version_is_free(connection, name, version)

    def add_dataset(self, digest: str, size_bytes: int, created_at_ms: int) -> records.Commit:
        """Puts a dataset on record."""
        with self._write() as connection:
            known = rows.holds(connection, schema.DATASETS, digest)
            if not known:
                row = {"digest": digest, "size_bytes": size_bytes, "created_at_ms": created_at_ms}
                connection.execute(schema.DATASETS.insert().values(row))
            return records.Commit(rows.head(connection), not known)

    def find_card_commit(self, digest: str) -> records.Commit | None:
        """The commit of a card, if there was one."""
        with self._read() as connection:
            return rows.commit_of(connection, digest)

    def find_dataset_commit(self, digest: str) -> records.Commit | None:
        """The commit of a dataset, if there was one."""
        with self._read() as connection:
            if not rows.holds(connection, schema.DATASETS, digest):
                return None
            return records.Commit(rows.head(connection), False)

    def holds(self, digest: str) -> bool:
        """Whether a card or dataset with this digest is committed."""
        with self._read() as connection:
            return any(rows.holds(connection, t, digest) for t in (_CARDS, schema.DATASETS))

    def get(self, reference: str) -> records.CardRecord:
        """The card behind `name`, `name@digest`, `name@alias` or a bare digest.

        Raises:
            errors.InvalidInputError: the reference has another form.
            errors.NotFoundError: nothing is known by it.
        """
        with self._read() as connection:
            # Names end at 63 characters, so that a digest is never one.
            if manifests.is_digest(reference):
                name, digest = None, reference
            else:
                name, selector = manifests.split_reference(reference)
                digest = selector
                if not manifests.is_digest(selector):
                    digest = rows.target(connection, name, selector) or ""
            record = rows.card(connection, digest)
        if record is None or name not in (None, record.name):
            raise errors.NotFoundError(f"the card store knows no card {reference!r}")
        return record

    def list_cards(self, all_versions: bool) -> records.Listing:
        """Cards by name: those that `latest` points to, or every version, newest first."""
        query = sa.select(_CARDS)
        if not all_versions:
            is_latest = sa.and_(
                _ALIASES.c.digest == _CARDS.c.digest, _ALIASES.c.alias == records.LATEST
            )
            query = query.join(_ALIASES, is_latest)
        query = query.order_by(_CARDS.c.name, _CARDS.c.created_at_ms.desc(), _CARDS.c.digest)
        with self._read() as connection:
            found = connection.execute(query).all()
            pointing = rows.aliases_by_digest(connection, None)
            cards = tuple(rows.to_record(row, pointing.get(row.digest, ())) for row in found)
            return records.Listing(cards, rows.head(connection))

    def set_alias(
        self, name: str, alias: str, digest: str, idempotency_key: str = ""
    ) -> records.AliasMove:
        """Points an alias of a card's name to one of its digests.

        Args:
            name: the card's name.
            alias: such as `production`; lower-case letters, digits and dashes.
            digest: a committed card of that name.
            idempotency_key: a request that comes again under its key moves nothing, even if
                somebody moved the alias elsewhere meanwhile; empty for none.

        Raises:
            errors.InvalidInputError: the alias is malformed.
            errors.NotFoundError: the name has no such card.
            errors.AlreadyExistsError: the key belongs to another request.
        """
        if not re.fullmatch(manifests.NAME_PATTERN, alias):
            raise errors.InvalidInputError(
                f"alias {alias!r}: expected 1 to 63 lower-case letters, digits and dashes"
            )
        with self._write() as connection:
            record = rows.card(connection, digest)
            if record is None or record.name != name:
                raise errors.NotFoundError(f"the card store knows no card {name}@{digest}")
            earlier = rows.find_key(connection, idempotency_key, (name, alias, digest))
            if earlier is not None:
                return records.AliasMove(record, earlier, False)
            if rows.target(connection, name, alias) == digest:
                return records.AliasMove(record, rows.head(connection), False)
            rows.point(connection, name, alias, digest)
            kind = records.ChangeKind.ALIAS_MOVED
            revision = rows.log(connection, kind, digest, alias, idempotency_key)
            moved = rows.card(connection, digest)
            assert moved is not None
            return records.AliasMove(moved, revision, True)

    def changes_after(self, revision: int, limit: int) -> list[records.Change]:
        """The next lines of the revision log, oldest first."""
        lines = sa.select(_LOG).where(_LOG.c.revision > revision)
        lines = lines.order_by(_LOG.c.revision).limit(limit)
        with self._read() as connection:
            found = connection.execute(lines).all()
            digests = {line.digest for line in found}
            cards = rows.cards_by_digest(connection, digests)
        return [
            records.Change(
                records.ChangeKind(line.kind), line.revision, cards[line.digest], line.alias
            )
            for line in found
        ]

    def totals(self) -> records.Totals:
        """Counts, bytes and the newest revision."""
        with self._read() as connection:
            counts = [
                connection.execute(
                    sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(t.c.size_bytes), 0))
                    .select_from(t)
                ).one()
                for t in (_CARDS, schema.DATASETS)
            ]  # fmt: skip
            size_bytes = int(counts[0][1]) + int(counts[1][1])
            return records.Totals(rows.head(connection), counts[0][0], counts[1][0], size_bytes)

    @contextlib.contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        with _typed_errors(), self._engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        with _typed_errors(), self._writing_engine.begin() as connection:
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
