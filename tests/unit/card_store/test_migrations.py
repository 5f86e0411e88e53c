"""A catalogue of an earlier version, with cards in it, is brought up to date and back."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import alembic.command
import alembic.config
import pytest
import sqlalchemy as sa

from services.card_store import records
from services.card_store.catalogue import catalogue, schema
from tests.unit.card_store.catalogue_cards import digest_of

_SCRIPTS = pathlib.Path(schema.__file__).parent / "migrations"


def migrate(engine: sa.Engine, revision: str, up: bool = True) -> None:
    configuration = alembic.config.Config()
    configuration.set_main_option("script_location", str(_SCRIPTS))
    configuration.set_main_option("path_separator", "os")
    with schema.writing(engine).begin() as connection:
        configuration.attributes["connection"] = connection
        (alembic.command.upgrade if up else alembic.command.downgrade)(configuration, revision)


@pytest.fixture
def first(url: str) -> Iterator[sa.Engine]:
    """As the first version left it: three versions of a card, the first in production."""
    engine = schema.open_database(url)
    migrate(engine, "0001")
    with engine.begin() as connection:
        for number, manifest in ((1, "{"), (2, "{}"), (3, '{"routing":{"examples":["pivot?"]}}')):
            values = {"digest": digest_of(number), "version": f"{number}.0.0", "manifest": manifest}
            connection.execute(
                sa.text(
                    "INSERT INTO cards VALUES "
                    "(:digest, 'sql', :version, 'databases', 'joins', 'f', 10, 1, :manifest)"
                ),
                values,
            )
            line = "INSERT INTO revisions (kind, digest, alias) VALUES (:kind, :digest, :alias)"
            values = {"kind": "CARD_PUBLISHED", "digest": digest_of(number), "alias": ""}
            connection.execute(sa.text(line), values)
        values = {"kind": "ALIAS_MOVED", "digest": digest_of(1), "alias": "production"}
        connection.execute(sa.text(line), values)
        for alias, number in (("latest", 3), ("production", 1)):
            connection.execute(
                sa.text("INSERT INTO aliases VALUES ('sql', :alias, :digest)"),
                {"alias": alias, "digest": digest_of(number)},
            )
    yield engine
    engine.dispose()


def test_cards_and_history_are_there_when_a_catalogue_with_cards_is_migrated(
    first: sa.Engine,
) -> None:
    schema.migrate(first)
    cards = catalogue.Catalogue(first)
    assert cards.totals().cards == 3 and cards.totals().revision == 4
    assert cards.get("sql@production").state is records.CardState.ACTIVE
    assert [move.revision for move in cards.aliases.history("sql", "latest")] == [3, 2, 1]
    for word in ("joins", "pivot", "sql"):
        [found] = cards.list_cards(records.Query(text=word)).cards
        assert found.digest == digest_of(3)
    assert cards.aliases.roll_back("sql", "latest").record.digest == digest_of(2)
    cards.retirement.delete(digest_of(2))
    assert cards.get("sql").digest == digest_of(1)


def test_cards_stay_when_the_catalogue_goes_back_and_forth(first: sa.Engine) -> None:
    schema.migrate(first)
    catalogue.Catalogue(first).retirement.revoke_key("some-key", "lost")
    migrate(first, "0001", up=False)
    with first.begin() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM cards")) == 3
        assert connection.scalar(sa.text("SELECT max(revision) FROM revisions")) == 4
    schema.migrate(first)
    assert catalogue.Catalogue(first).get("sql").digest == digest_of(3)
