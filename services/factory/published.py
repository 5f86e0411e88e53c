"""The cards that this factory published, with all it takes to prove them again.

Blocking; `board` calls it off the event loop.
"""

from __future__ import annotations

import dataclasses

import pydantic
import sqlalchemy as sa

from services.factory import partners, tables, transactions

_TRIGGERS = pydantic.TypeAdapter(tuple[partners.Trigger, ...])


@dataclasses.dataclass(frozen=True)
class PublishedCard:
    """A card that was confirmed."""

    card: str
    """`name@digest`."""
    task_id: str
    dataset_digest: str
    triggers: tuple[partners.Trigger, ...]
    checked_at_ms: int
    """When it was last proved."""

    @property
    def name(self) -> str:
        """Of the skill."""
        return self.card.partition("@")[0]


class CardBook:
    """All of them."""

    def __init__(self, database: transactions.Database) -> None:
        """Takes the ledger's database."""
        self._database = database

    def keep(self, card: PublishedCard) -> None:
        """Adds a card; one that is known stays as it is."""

        def write(connection: sa.Connection) -> None:
            if _find(connection, card.card) is None:
                triggers = _TRIGGERS.dump_python(card.triggers, mode="json")
                values = {**dataclasses.asdict(card), "triggers": triggers}
                connection.execute(tables.published_cards.insert().values(**values))

        self._database.write(write)

    def find(self, card: str) -> PublishedCard | None:
        """A card by its `name@digest`; None where this factory did not publish it."""
        with self._database.read() as connection:
            return _find(connection, card)

    def unchecked_since(
        self, at_ms: int, wrongs: int = 0, doubted_at_ms: int = 0
    ) -> list[PublishedCard]:
        """Cards that are due to be proved again, the longest unproved first.

        Args:
            at_ms: those that were last proved before this Unix time are,
            wrongs: and those whose answers to so many different questions were called wrong since
                they were; 0: none for that.
            doubted_at_ms: of these only what was last proved before this Unix time.
        """
        table = tables.published_cards
        due = table.c.checked_at_ms < at_ms
        if wrongs:
            rested = table.c.checked_at_ms < doubted_at_ms
            due = sa.or_(due, sa.and_(rested, table.c.card.in_(_doubted(wrongs))))
        query = sa.select(table).where(due).order_by(table.c.checked_at_ms)
        with self._database.read() as connection:
            return [_card(row) for row in connection.execute(query).mappings()]

    def checked(self, card: str, at_ms: int) -> None:
        """Notes that a card was proved again."""
        table = tables.published_cards

        def write(connection: sa.Connection) -> None:
            connection.execute(
                table.update().where(table.c.card == card).values(checked_at_ms=at_ms)
            )

        self._database.write(write)


def _doubted(wrongs: int) -> sa.Select[tuple[str]]:
    table, said = tables.published_cards, tables.feedback
    return (
        sa.select(said.c.card)
        .join(table, table.c.card == said.c.card)
        .where(sa.not_(said.c.is_right))
        .where(said.c.received_at_ms > table.c.checked_at_ms)
        .group_by(said.c.card)
        .having(sa.func.count(sa.distinct(said.c.question_key)) >= wrongs)
    )


def _find(connection: sa.Connection, card: str) -> PublishedCard | None:
    table = tables.published_cards
    row = connection.execute(sa.select(table).where(table.c.card == card)).mappings().first()
    return None if row is None else _card(row)


def _card(row: sa.RowMapping) -> PublishedCard:
    return PublishedCard(**{**row, "triggers": _TRIGGERS.validate_python(row["triggers"])})
