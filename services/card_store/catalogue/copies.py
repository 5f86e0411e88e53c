"""What is known of the peers: how far each was followed, and which of the cards here it has, too.

What it keeps can be told again by a peer's log, and is written some lines at a time; who gave a
card is written with the card. Calls block: use a thread.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

import sqlalchemy as sa

from services.card_store import records
from services.card_store.catalogue import database, rows, schema

_COPIES, _PEERS = schema.COPIES, schema.PEERS
_DIGESTS_AT_ONCE = 500
"""Of one query; databases bound its parameters."""


class Copies:
    """The peers' part of one catalogue."""

    def __init__(self, opened: database.Database) -> None:
        """Takes the database."""
        self._database = opened

    def peers(self) -> dict[str, records.PeerCursor]:
        """How far each peer was followed, by its store's id."""
        with self._database.read() as connection:
            found = connection.execute(sa.select(_PEERS)).all()
        return {
            row.store_id: records.PeerCursor(row.control, row.revision, row.flight) for row in found
        }

    def remember(self, store_id: str, cursor: records.PeerCursor, held: Mapping[str, bool]) -> None:
        """Keeps how far a peer was followed, and what was learned of its cards on the way.

        Args:
            store_id: of the peer.
            cursor: where to go on at the next start.
            held: by digest, whether the peer has the card's bytes; unknown cards are passed over.
        """
        with self._database.write() as connection:
            connection.execute(_PEERS.delete().where(_PEERS.c.store_id == store_id))
            values = {"store_id": store_id, **dataclasses.asdict(cursor)}
            connection.execute(_PEERS.insert().values(values))
            digests = list(held)
            for at in range(0, len(digests), _DIGESTS_AT_ONCE):
                for digest in rows.known(connection, digests[at : at + _DIGESTS_AT_ONCE]):
                    _note(connection, digest, store_id, held[digest])

    def forget_held(self, store_id: str) -> None:
        """Takes back what is known of a peer's bytes, before all of it is told again."""
        with self._database.write() as connection:
            theirs = _COPIES.c.store_id == store_id
            connection.execute(_COPIES.update().where(theirs).values(held=False))

    def gave(self, store_id: str, digest: str) -> bool:
        """Whether a card was taken from this peer."""
        query = sa.select(_COPIES.c.gave).where(
            _COPIES.c.digest == digest, _COPIES.c.store_id == store_id
        )
        with self._database.read() as connection:
            return bool(connection.scalar(query))

    def replicas(self, digests: Collection[str]) -> dict[str, list[str]]:
        """Digest to the data planes of the peers that have its bytes and can be reached now."""
        query = (
            sa.select(_COPIES.c.digest, _PEERS.c.flight)
            .join(_PEERS, _PEERS.c.store_id == _COPIES.c.store_id)
            .where(_COPIES.c.digest.in_(list(digests)), _COPIES.c.held, _PEERS.c.flight != "")
            .order_by(_COPIES.c.digest, _PEERS.c.flight)
        )
        found: dict[str, list[str]] = {}
        with self._database.read() as connection:
            for digest, flight in connection.execute(query):
                found.setdefault(digest, []).append(flight)
        return found


def note_given(connection: sa.Connection, digest: str, store_id: str) -> None:
    """Writes down who gave a card, in the transaction that puts it on record."""
    row = {"digest": digest, "store_id": store_id, "held": False, "gave": True}
    connection.execute(_COPIES.insert().values(row))


def _note(connection: sa.Connection, digest: str, store_id: str, held: bool) -> None:
    here = sa.and_(_COPIES.c.digest == digest, _COPIES.c.store_id == store_id)
    changed = connection.execute(_COPIES.update().where(here).values(held=held))
    if not changed.rowcount:
        row = {"digest": digest, "store_id": store_id, "held": held, "gave": False}
        connection.execute(_COPIES.insert().values(row))
