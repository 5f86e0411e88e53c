from __future__ import annotations

import concurrent.futures
import dataclasses

import alembic.autogenerate
import alembic.migration
import pytest
import sqlalchemy as sa

from services.card_store import records
from services.card_store.catalogue import catalogue, schema
from shared import errors
from tests.unit.card_store.catalogue_cards import card, digest_of


def test_migrations_give_the_tables_of_the_code_when_run_twice(url: str) -> None:
    engine = schema.open_database(url)
    schema.migrate(engine)
    schema.migrate(engine)
    with engine.begin() as connection:
        context = alembic.migration.MigrationContext.configure(
            connection,
            opts={"include_name": lambda name, *_: not str(name).startswith("card_words")},
        )
        assert alembic.autogenerate.compare_metadata(context, schema.METADATA) == []
    engine.dispose()


def test_readers_and_writer_get_along_when_sqlite_is_opened(sqlite_url: str) -> None:
    engine = schema.open_database(sqlite_url)
    with engine.begin() as connection:
        assert connection.scalar(sa.text("PRAGMA journal_mode")) == "wal"
    engine.dispose()


def test_store_keeps_its_identity_when_it_is_opened_again(
    cards: catalogue.Catalogue, url: str
) -> None:
    again = catalogue.Catalogue(schema.open_database(url))
    again.migrate()
    assert again.store_id() == cards.store_id() != ""
    again.close()


def test_catalogue_of_a_newer_version_is_refused_when_migrated(
    cards: catalogue.Catalogue, url: str
) -> None:
    engine = schema.open_database(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(errors.ConfigError, match=r"card_store\.database_url"):
        schema.migrate(engine)
    engine.dispose()


@pytest.mark.parametrize("url", ["nonsense", "oracle+nothing://x", "postgresql+absent://x/y"])
def test_url_is_refused_when_no_database_can_be_behind_it(url: str) -> None:
    with pytest.raises(errors.ConfigError, match=r"card_store\.database_url"):
        schema.open_database(url)


def test_latest_moves_when_a_newer_version_is_added(cards: catalogue.Catalogue) -> None:
    first, second = cards.add_card(card(1)), cards.add_card(card(2))
    assert first.record is not None and first.record.aliases == ("latest",)
    assert (first.revision, second.revision) == (1, 2)
    assert cards.get("sql").digest == digest_of(2)
    assert cards.get(digest_of(1)).aliases == ()


def test_first_commit_is_returned_when_a_digest_is_added_again(cards: catalogue.Catalogue) -> None:
    first = cards.add_card(card(1))
    cards.add_card(card(2))
    again = cards.add_card(card(1))
    assert (again.created, again.revision) == (False, first.revision)
    assert cards.get("sql").digest == digest_of(2)
    assert cards.totals() == records.Totals(revision=2, cards=2, datasets=0, size_bytes=20)


def test_version_is_refused_and_nothing_changes_when_it_has_another_digest(
    cards: catalogue.Catalogue,
) -> None:
    cards.add_card(card(1, version="1.0.0"))
    for attempt in (
        lambda: cards.add_card(card(2, version="1.0.0")),
        lambda: cards.check_acceptable(card(9, version="1.0.0")),
    ):
        with pytest.raises(errors.AlreadyExistsError, match="higher version"):
            attempt()
    assert cards.totals().revision == 1
    assert not cards.holds(digest_of(2))


@pytest.mark.parametrize(
    "reference", ["sql", "sql@latest", f"sql@{digest_of(1)}", digest_of(1), "sql@production"]
)
def test_card_is_found_when_the_reference_fits(cards: catalogue.Catalogue, reference: str) -> None:
    cards.add_card(card(1))
    cards.aliases.set("sql", "production", digest_of(1))
    expected = dataclasses.replace(card(1), aliases=("latest", "production"))
    assert cards.get(reference) == expected


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        ("other", errors.NotFoundError),
        ("sql@staging", errors.NotFoundError),
        (f"other@{digest_of(1)}", errors.NotFoundError),
        (digest_of(9), errors.NotFoundError),
        ("", errors.InvalidInputError),
        ("sql@", errors.InvalidInputError),
        ("../x", errors.InvalidInputError),
    ],
)
def test_error_is_typed_when_the_reference_does_not_fit(
    cards: catalogue.Catalogue, reference: str, error: type[errors.SkillmeshError]
) -> None:
    cards.add_card(card(1))
    with pytest.raises(error):
        cards.get(reference)


def test_listing_has_what_latest_points_to_when_not_all_versions_are_asked(
    cards: catalogue.Catalogue,
) -> None:
    for number, name in ((1, "sql"), (2, "sql"), (3, "git")):
        cards.add_card(card(number, name))
    cards.aliases.set("sql", "latest", digest_of(1))
    latest = cards.list_cards()
    assert [item.digest for item in latest.cards] == [digest_of(3), digest_of(1)]
    assert latest.revision == 4
    everything = cards.list_cards(records.Query(all_versions=True)).cards
    assert [item.digest for item in everything] == [digest_of(3), digest_of(2), digest_of(1)]


def test_alias_stays_when_an_old_request_is_repeated(cards: catalogue.Catalogue) -> None:
    cards.add_card(card(1))
    cards.add_card(card(2))
    first = cards.aliases.set("sql", "production", digest_of(1), "key-1")
    cards.aliases.set("sql", "production", digest_of(2), "key-2")
    again = cards.aliases.set("sql", "production", digest_of(1), "key-1")
    assert (again.moved, again.revision) == (False, first.revision)
    assert cards.get("sql@production").digest == digest_of(2)


def test_key_is_refused_when_another_request_used_it(cards: catalogue.Catalogue) -> None:
    cards.add_card(card(1))
    cards.aliases.set("sql", "production", digest_of(1), "key-1")
    with pytest.raises(errors.AlreadyExistsError, match="key-1"):
        cards.aliases.set("sql", "staging", digest_of(1), "key-1")


def test_log_is_not_written_when_the_alias_points_there_already(
    cards: catalogue.Catalogue,
) -> None:
    cards.add_card(card(1))
    assert not cards.aliases.set("sql", "latest", digest_of(1)).moved
    assert cards.totals().revision == 1


@pytest.mark.parametrize(
    ("name", "alias", "number", "error"),
    [
        ("sql", "Production", 1, errors.InvalidInputError),
        ("sql", "", 1, errors.InvalidInputError),
        ("sql", "production", 9, errors.NotFoundError),
        ("git", "production", 1, errors.NotFoundError),
    ],
)
def test_alias_is_refused_when_it_or_its_card_is_wrong(
    cards: catalogue.Catalogue,
    name: str,
    alias: str,
    number: int,
    error: type[errors.SkillmeshError],
) -> None:
    cards.add_card(card(1))
    with pytest.raises(error):
        cards.aliases.set(name, alias, digest_of(number))


def test_log_gives_the_changes_in_order_when_read_in_pages(cards: catalogue.Catalogue) -> None:
    cards.add_card(card(1))
    cards.aliases.set("sql", "production", digest_of(1))
    cards.add_card(card(2))
    first, rest = cards.changes_after(0, 1), cards.changes_after(1, 10)
    told = [
        (change.kind.name, change.revision, change.card and change.card.version, change.alias)
        for change in first + rest
    ]
    assert told == [
        ("CARD_PUBLISHED", 1, "1.0.0", ""),
        ("ALIAS_MOVED", 2, "1.0.0", "production"),
        ("CARD_PUBLISHED", 3, "2.0.0", ""),
    ]
    assert cards.changes_after(3, 10) == []


def test_dataset_is_held_when_added_twice(cards: catalogue.Catalogue) -> None:
    assert cards.add_table("dataset", digest_of(5), 7, 1) == records.Commit(0, True)
    assert cards.add_table("dataset", digest_of(5), 7, 2) == records.Commit(0, False)
    assert cards.holds(digest_of(5))
    assert cards.find_table_commit(digest_of(6)) is None
    assert cards.totals().datasets == 1


def test_reader_sees_commits_but_cannot_write_when_opened_read_only(
    cards: catalogue.Catalogue, url: str
) -> None:
    reader = catalogue.Catalogue(schema.open_read_only(url))
    assert not reader.holds(digest_of(1))
    cards.add_card(card(1))
    assert reader.holds(digest_of(1))
    with pytest.raises(errors.UnavailableError, match=r"read-?only"):
        reader.add_card(card(2))
    cards.close()
    assert reader.get("sql").digest == digest_of(1)
    reader.close()


def test_reader_says_so_when_the_catalogue_is_not_made_yet(url: str) -> None:
    reader = catalogue.Catalogue(schema.open_read_only(url))
    with pytest.raises(errors.UnavailableError, match="control process"):
        reader.list_cards(records.Query(all_versions=True))
    with pytest.raises(errors.UnavailableError, match="control process"):
        reader.holds(digest_of(1))
    reader.close()


def test_reader_of_the_log_passes_over_nothing_when_two_stores_write_at_once(url: str) -> None:
    stores = [catalogue.Catalogue(schema.open_database(url)) for _ in range(2)]
    stores[0].migrate()
    count = 40

    def write(which: int) -> None:
        for number in range(which * count, (which + 1) * count):
            stores[which].add_card(card(number + 1, f"name-{number}"))

    seen = 0
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        writing = [threads.submit(write, which) for which in range(2)]
        while seen < 2 * count:
            is_over = all(future.done() for future in writing)
            for change in stores[0].changes_after(seen, 1000):
                assert change.revision == seen + 1
                seen = change.revision
            assert seen == 2 * count or not is_over
        for future in writing:
            future.result()
    for opened in stores:
        opened.close()
