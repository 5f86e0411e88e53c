"""Puts many cards on record at once, where one transaction a card would take an hour.

The result is that of `Catalogue.add_card` for each card in turn.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import sqlalchemy as sa

from services.card_store import records
from services.card_store.catalogue import catalogue, listing, rows, schema

_AT_ONCE = 2_000


def add_many(opened: catalogue.Catalogue, cards: Iterable[records.CardRecord]) -> int:
    """Adds cards that the catalogue does not know, each the latest of its name.

    Args:
        opened: a catalogue for writing.
        cards: with different names; a name has one version.

    Returns:
        How many.
    """
    count, source = 0, iter(cards)
    while batch := list(itertools.islice(source, _AT_ONCE)):
        with opened.transaction() as connection:
            _add(connection, batch)
        count += len(batch)
    return count


def _add(connection: sa.Connection, batch: list[records.CardRecord]) -> None:
    first = rows.head(connection) + 1
    numbered = list(enumerate(batch, first))
    kind = records.ChangeKind.CARD_PUBLISHED.value
    connection.execute(rows.CARDS.insert(), [rows.of_record(card) for card in batch])
    for card in batch:
        listing.remember_words(connection, card)
    connection.execute(
        rows.LOG.insert(),
        [
            {
                "revision": revision,
                "kind": kind,
                "digest": card.digest,
                "alias": "",
                "at_ms": card.created_at_ms,
            }
            for revision, card in numbered
        ],
    )
    pointing = [
        {"name": card.name, "alias": records.LATEST, "digest": card.digest} for card in batch
    ]
    connection.execute(rows.ALIASES.insert(), pointing)
    connection.execute(
        schema.ALIAS_MOVES.insert(),
        [
            alias | {"revision": revision, "stands_for": revision, "at_ms": card.created_at_ms}
            for alias, (revision, card) in zip(pointing, numbered, strict=True)
        ],
    )
