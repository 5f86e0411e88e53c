"""The catalogue: which cards and datasets are committed and what changed when.

Every mutation is one transaction and safe to repeat. Calls block on the database: use a thread.
Knows nothing of files; `store` brings both together. Where aliases point is `aliases`' business,
what leaves is `retirement`'s.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence

import sqlalchemy as sa

from services.card_store import records
from services.card_store.catalogue import (
    aliases,
    copies,
    database,
    listing,
    nodes,
    retirement,
    rows,
    schema,
    upkeep,
)
from shared import errors
from shared.cards import manifest as manifests

_CARDS, _LOG = rows.CARDS, rows.LOG


class Catalogue:
    """One open catalogue."""

    def __init__(
        self,
        engine: sa.Engine,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """Takes an engine of `schema.open_database` or `schema.open_read_only`, and the time."""
        self._database = database.Database(engine)
        self._clock_ms = clock_ms
        self.aliases = aliases.Aliases(self._database, clock_ms)
        """Where aliases point."""
        self.retirement = retirement.Retirement(self._database, clock_ms)
        """What takes cards out of service."""
        self.copies = copies.Copies(self._database)
        """What is known of the peers."""
        self.upkeep = upkeep.Upkeep(self._database)
        """What may go, and what must stay."""
        self.nodes = nodes.Nodes(self._database)
        """What nodes told the stores that share it."""

    def migrate(self) -> None:
        """Brings the tables up to date; only the control plane does this."""
        schema.migrate(self._database.engine)

    @property
    def may_be_shared(self) -> bool:
        """Whether other stores may write to it, too."""
        return self._database.may_be_shared

    def close(self) -> None:
        """Closes every connection."""
        self._database.close()

    def transaction(self) -> contextlib.AbstractContextManager[sa.Connection]:
        """A transaction that writes, for whoever adds much at once."""
        return self._database.write()

    def store_id(self) -> str:
        """The store's identity, made with its catalogue."""
        with self._database.read() as connection:
            return str(connection.scalar(sa.select(schema.STORE.c.store_id)))

    def add_card(self, card: records.CardRecord) -> records.Commit:
        """Puts a card on record and moves the alias `latest` of its name to it.

        Args:
            card: its aliases are ignored.

        Raises:
            errors.AlreadyExistsError: the name has that version with another digest.
            errors.PreconditionError: this card was deleted or revoked before.
            errors.UntrustedError: the key that signed it is revoked.
        """
        return self._add(card, latest=True)

    def add_mirrored(self, card: records.CardRecord, giver: str) -> records.Commit:
        """Puts a peer's card on record; `latest` moves only to a higher semantic version.

        Args:
            card: with its origin; `remote` where its bytes are not here.
            giver: id of the peer that it is taken from.

        Raises:
            errors.SkillmeshError: as `add_card`.
        """
        return self._add(card, latest=False, giver=giver)

    def arrived(self, digest: str) -> records.CardRecord:
        """Notes that the bytes of a remote card are here now.

        Raises:
            errors.NotFoundError: there is no such card.
        """
        with self._database.write() as connection:
            here = _CARDS.c.digest == digest
            connection.execute(_CARDS.update().where(here).values(remote=False))
            record = rows.card(connection, digest)
        if record is None:
            raise errors.NotFoundError(f"the card store knows no card with digest {digest}")
        return record

    def check_acceptable(self, card: records.CardRecord) -> None:
        """Raises what `add_card` would, before the card's file is where committed ones are.

        Raises:
            errors.AlreadyExistsError: the name has that version with another digest.
            errors.PreconditionError: this card was deleted or revoked before.
            errors.UntrustedError: the key that signed it is revoked.
        """
        with self._database.read() as connection:
            rows.check_active(rows.card(connection, card.digest))
            _check_new(connection, card)

    def _add(self, card: records.CardRecord, latest: bool, giver: str = "") -> records.Commit:
        with self._database.write() as connection:
            known = rows.commit_of(connection, card.digest)
            if known is not None:
                rows.check_active(known.record)
                return known
            _check_new(connection, card)
            connection.execute(_CARDS.insert().values(rows.of_record(card)))
            listing.remember_words(connection, card)
            if giver:
                copies.note_given(connection, card.digest, giver)
            now_ms = self._clock_ms()
            kind = records.ChangeKind.CARD_PUBLISHED
            revision = rows.log(connection, kind, card.digest, at_ms=now_ms)
            if latest or rows.is_newest(connection, card):
                rows.point(connection, card.name, records.LATEST, card.digest, revision, now_ms)
            return records.Commit(revision, True, rows.card(connection, card.digest))

    def add_table(
        self, kind: str, digest: str, size_bytes: int, created_at_ms: int
    ) -> records.Commit:
        """Puts a dataset or a snapshot on record."""
        with self._database.write() as connection:
            known = rows.holds(connection, schema.DATASETS, digest)
            if not known:
                row = {"digest": digest, "size_bytes": size_bytes, "created_at_ms": created_at_ms}
                connection.execute(schema.DATASETS.insert().values(row | {"kind": kind}))
            return records.Commit(rows.head(connection), not known)

    def find_card_commit(self, digest: str) -> records.Commit | None:
        """The commit of a card, if there was one.

        Raises:
            errors.PreconditionError: it was deleted or revoked since.
        """
        with self._database.read() as connection:
            found = rows.commit_of(connection, digest)
        if found is not None:
            rows.check_active(found.record)
        return found

    def find_table_commit(self, digest: str) -> records.Commit | None:
        """The commit of a dataset or a snapshot, if there was one."""
        with self._database.read() as connection:
            if not rows.holds(connection, schema.DATASETS, digest):
                return None
            return records.Commit(rows.head(connection), False)

    def holds(self, digest: str) -> bool:
        """Whether an active card, a dataset or a snapshot with this digest is here."""
        with self._database.read() as connection:
            # Asked before every transfer: no more is read than is needed.
            query = sa.select(_CARDS.c.state, _CARDS.c.remote).where(_CARDS.c.digest == digest)
            card = connection.execute(query).one_or_none()
            if card is not None:
                return card.state == records.CardState.ACTIVE.value and not card.remote
            return rows.holds(connection, schema.DATASETS, digest)

    def get(self, reference: str) -> records.CardRecord:
        """The card behind `name`, `name@digest`, `name@alias` or a bare digest, in any state.

        Raises:
            errors.InvalidInputError: the reference has another form.
            errors.NotFoundError: nothing is known by it.
        """
        with self._database.read() as connection:
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

    def list_cards(self, query: records.Query = records.Query()) -> records.Listing:  # noqa: B008
        """Active cards by name, versions newest first; see `records.Query`.

        Raises:
            errors.InvalidInputError: the page token is not one of this store.
        """
        with self._database.read() as connection:
            page = listing.page(connection, query)
            keys = () if query.page_token else tuple(sorted(retirement.revoked_keys(connection)))
        return dataclasses.replace(page, revoked_keys=keys)

    def changes_after(self, revision: int, limit: int) -> list[records.Change]:
        """The next lines of the revision log, oldest first.

        Raises:
            errors.RevisionTooOldError: lines after that revision are gone.
        """
        lines = sa.select(_LOG).where(_LOG.c.revision > revision)
        lines = lines.order_by(_LOG.c.revision).limit(limit)
        with self._database.read() as connection:
            oldest = rows.compacted_to(connection)
            if revision < oldest:
                raise errors.RevisionTooOldError(
                    f"revision {revision} is too old: the log begins after {oldest}; list the "
                    "cards and watch from the revision of that listing"
                )
            found = connection.execute(lines).all()
            digests = {line.digest for line in found if line.digest is not None}
            cards = rows.cards_by_digest(connection, digests)
        return [
            records.Change(
                records.ChangeKind(line.kind),
                line.revision,
                cards.get(line.digest),
                line.alias,
                line.key_id,
                line.at_ms * 1000,
            )
            for line in found
        ]

    def compact(self, keep_lines: int) -> int:
        """Drops all but the newest lines of the revision log.

        Returns:
            The revision that a watch can begin from at the earliest.
        """
        with self._database.write() as connection:
            oldest = max(rows.compacted_to(connection), rows.head(connection) - keep_lines)
            connection.execute(_LOG.delete().where(_LOG.c.revision <= oldest))
            connection.execute(schema.STORE.update().values(compacted_to=oldest))
            return oldest

    def begin_log_anew(self, skipped: int) -> int:
        """Empties the revision log and goes on at a number that was never given before.

        For a catalogue that is older than what watchers may have seen of it: each of them is told
        to list again.

        Args:
            skipped: more lines than can have been written since.

        Returns:
            The revision that a watch can begin from.
        """
        with self._database.write() as connection:
            begins = rows.head(connection) + skipped
            connection.execute(_LOG.delete())
            connection.execute(schema.STORE.update().values(compacted_to=begins))
            schema.number_revisions_from(connection, begins + 1)
            return begins

    def head(self) -> int:
        """The newest revision, 0 before the first."""
        with self._database.read() as connection:
            return rows.head(connection)

    def totals(self) -> records.Totals:
        """Counts, bytes and the newest revision."""
        with self._database.read() as connection:
            counts = [
                connection.execute(
                    sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(t.c.size_bytes), 0))
                    .select_from(t)
                ).one()
                for t in (_CARDS, schema.DATASETS)
            ]  # fmt: skip
            size_bytes = int(counts[0][1]) + int(counts[1][1])
            return records.Totals(
                rows.head(connection),
                counts[0][0],
                counts[1][0],
                size_bytes,
                rows.compacted_to(connection),
            )

    def known(self, digests: Sequence[str]) -> set[str]:
        """Those of the digests that are on record, in any state."""
        with self._database.read() as connection:
            return rows.known(connection, digests)


def _check_new(connection: sa.Connection, card: records.CardRecord) -> None:
    rows.check_version_is_free(connection, card.name, card.version, card.digest)
    if card.signer and retirement.is_revoked(connection, card.signer):
        raise errors.UntrustedError(
            f"card {card.name}: the key {card.signer} that signed it is revoked; sign it with "
            "another key"
        )
