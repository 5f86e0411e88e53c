from __future__ import annotations

import pathlib

import pytest

from services.card_store import blobs, processes, records
from services.card_store.admin import backup
from shared import errors
from shared import settings as config
from shared.flight import datasets
from tests.unit.card_store.house import House


def settings_of(root: pathlib.Path, **card_store: str) -> config.Settings:
    return config.Settings.model_validate(
        {"cluster": {"state_dir": root}, "card_store": card_store}
    )


@pytest.fixture
def settings(house: House) -> config.Settings:
    found = settings_of(house.root.parent)
    assert processes.folder(found) == house.root
    return found


async def test_store_is_as_it_was_when_a_backup_is_restored(
    house: House, settings: config.Settings, tmp_path: pathlib.Path
) -> None:
    first, second = house.stage_card("tiny", "1.0.0", 1), house.stage_card("tiny", "1.1.0", 2)
    for digest in (first, second):
        await house.store.commit("card", digest)
    dataset = house.stage(datasets.to_bytes([]))
    await house.store.commit("dataset", dataset)
    await house.store.set_alias("tiny", "production", first, "")
    # Taken while the store is open and writes.
    copied = backup.back_up(settings, tmp_path / "backup")
    assert (copied.files, copied.present, copied.faults) == (3, 0, ())
    seen = house.cards.head()
    await house.store.commit("card", house.stage_card("later"))

    there = settings_of(tmp_path / "restored")
    assert backup.restore(there, tmp_path / "backup").files == 3
    again = House(processes.folder(there))
    assert again.cards.store_id() == house.cards.store_id()
    assert again.cards.get("tiny@production").digest == first
    assert again.cards.get("tiny").digest == second
    assert again.cards.holds(dataset)
    assert again.cards.list_cards(records.Query(text="tiny")).cards[0].digest == second
    assert again.files.committed(second).read_bytes() == house.files.committed(second).read_bytes()
    # Who has seen more of it than the backup has must not go on from there.
    for revision in (seen, house.cards.head()):
        with pytest.raises(errors.RevisionTooOldError):
            await anext(again.store.watch(revision))
    commit = await again.store.commit("card", again.stage_card("another"))
    assert commit.revision == again.cards.totals().oldest_revision + 1 > house.cards.head()
    again.close()


async def test_only_what_is_new_is_copied_when_a_backup_is_repeated(
    house: House, settings: config.Settings, tmp_path: pathlib.Path
) -> None:
    first, second = house.stage_card("first"), house.stage_card("second")
    for digest in (first, second):
        await house.store.commit("card", digest)
    folder = tmp_path / "backup"
    backup.back_up(settings, folder)
    await house.store.delete(first)
    await house.store.commit("card", house.stage_card("third"))
    broken = folder / "blobs" / second
    broken.chmod(0o644)
    broken.write_bytes(b"half")
    copied = backup.back_up(settings, folder)
    assert (copied.files, copied.present) == (2, 0)
    assert (folder / "blobs" / second).stat().st_size > 4
    assert not (folder / "blobs" / first).exists()
    assert backup.back_up(settings, folder).present == 2


async def test_damaged_file_is_named_when_the_rest_is_backed_up(
    house: House, settings: config.Settings, tmp_path: pathlib.Path
) -> None:
    good, bad, missing = (house.stage_card(name) for name in ("good", "bad", "missing"))
    for digest in (good, bad, missing):
        await house.store.commit("card", digest)
    path = house.root / "blobs" / bad
    path.chmod(0o644)
    path.write_bytes(b"!" + path.read_bytes()[1:])
    (house.root / "blobs" / missing).unlink()
    copied = backup.back_up(settings, tmp_path / "backup")
    assert copied.files == 1 and len(copied.faults) == 2
    assert any(bad in fault for fault in copied.faults)
    assert [file.digest for file in blobs.BlobStore(tmp_path / "backup").files()] == [good]


async def test_restoring_is_refused_when_a_store_is_there(
    house: House, settings: config.Settings, tmp_path: pathlib.Path
) -> None:
    backup.back_up(settings, tmp_path / "backup")
    with pytest.raises(errors.AlreadyExistsError, match="move that folder away"):
        backup.restore(settings, tmp_path / "backup")
    with pytest.raises(errors.NotFoundError, match="holds no backup"):
        backup.restore(settings_of(tmp_path / "new"), tmp_path / "nothing")


def test_backup_is_refused_when_there_is_no_store_of_files_here(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.NotFoundError, match="no card store to back up"):
        backup.back_up(settings_of(tmp_path), tmp_path / "backup")
    elsewhere = settings_of(tmp_path, database_url="postgresql+psycopg://x@y/z")
    with pytest.raises(errors.ConfigError, match="that database's own tools"):
        backup.back_up(elsewhere, tmp_path / "backup")
