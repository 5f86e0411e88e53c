"""Copies a card store into a folder while it runs, and a folder back into an empty store.

The folder is a store's own: `catalogue.db` and `blobs/`, every file checked against its digest on
the way. A backup into the same folder again copies only what is new. Calls block.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import sqlite3
from collections.abc import Iterator, Mapping

import sqlalchemy as sa

from services.card_store import blobs, processes
from services.card_store.catalogue import catalogue, schema
from shared import errors
from shared import settings as config

_CATALOGUE = "catalogue.db"
_SKIPPED_LINES = 1_000_000
"""More than a store's log grows between a backup and its restoration."""


@dataclasses.dataclass(frozen=True)
class Copied:
    """What a copy led to."""

    files: int
    """Copied now."""
    size_bytes: int
    """Of these."""
    present: int
    """Files that were there already."""
    faults: tuple[str, ...]
    """Files that could not be copied, each with the reason."""


def back_up(settings: config.Settings, folder: pathlib.Path) -> Copied:
    """Copies the store of this machine into a folder.

    The catalogue of the folder changes last: whatever comes between, what it names is there.

    Raises:
        errors.ConfigError: the folder can't be made, or the catalogue is not in SQLite.
        errors.NotFoundError: there is no store here.
        errors.OverloadedError: the disk is full.
        errors.UnavailableError: the disk or the database can't be used.
    """
    source = _catalogue_path(settings)
    if not source.is_file():
        raise errors.NotFoundError(f"there is no card store to back up: {source} is missing")
    target = blobs.BlobStore(folder)
    part = folder / f"{_CATALOGUE}.part"
    part.unlink(missing_ok=True)
    with _database_errors(), contextlib.closing(_reading(source)) as connection:
        connection.execute("VACUUM INTO ?", (str(part),))
    needed = _needed(part)
    copied = _copy(processes.blob_store(settings), target, needed)
    _settle(part, folder / _CATALOGUE)
    for file in target.files():
        if file.digest not in needed:
            target.remove(file.digest)
    return copied


def restore(settings: config.Settings, folder: pathlib.Path) -> Copied:
    """Makes the store of this machine what it was when the backup was taken.

    Nodes and peers that have seen more of the store than the backup has are told to list anew.

    Raises:
        errors.AlreadyExistsError: there is a store here.
        errors.ConfigError: the store's folder can't be made, or its catalogue is not in SQLite.
        errors.NotFoundError: the folder holds no backup.
        errors.OverloadedError: the disk is full.
        errors.UnavailableError: the disk can't be used.
    """
    source, target = folder / _CATALOGUE, _catalogue_path(settings)
    if not source.is_file():
        raise errors.NotFoundError(f"{folder} holds no backup: {source} is missing")
    if target.exists():
        raise errors.AlreadyExistsError(
            f"there is a card store at {target.parent}; stop it and move that folder away first"
        )
    files = processes.blob_store(settings)
    part = target.with_suffix(".part")
    part.unlink(missing_ok=True)
    with _database_errors(), contextlib.closing(_reading(source)) as connection:
        connection.execute("VACUUM INTO ?", (str(part),))
    cards = catalogue.Catalogue(schema.open_database(f"sqlite:///{part}"))
    cards.migrate()
    cards.begin_log_anew(_SKIPPED_LINES)
    cards.close()
    copied = _copy(blobs.BlobStore(folder), files, _needed(part))
    _settle(part, target)
    return copied


def _copy(source: blobs.BlobStore, target: blobs.BlobStore, needed: Mapping[str, int]) -> Copied:
    files = size_bytes = present = 0
    faults: list[str] = []
    there = {file.digest: file.size_bytes for file in target.files()}
    for digest, expected_bytes in sorted(needed.items()):
        if there.get(digest) == expected_bytes:
            present += 1
            continue
        if digest in there:
            target.remove(digest)  # Half of it, and in the way.
        try:
            target.stage(digest, expected_bytes, source.chunks(digest))
        except (errors.NotFoundError, errors.IntegrityError) as error:
            faults.append(str(error))
            continue
        target.promote(digest)
        files, size_bytes = files + 1, size_bytes + expected_bytes
    return Copied(files, size_bytes, present, tuple(faults))


def _needed(path: pathlib.Path) -> dict[str, int]:
    cards = catalogue.Catalogue(schema.open_database(f"sqlite:///{path}"))
    try:
        return cards.upkeep.files()
    finally:
        cards.close()


def _catalogue_path(settings: config.Settings) -> pathlib.Path:
    url = sa.make_url(processes.catalogue_url(settings))
    if url.get_backend_name() != "sqlite" or not url.database:
        raise errors.ConfigError(
            f"the catalogue is in {url.get_backend_name()} (card_store.database_url): back it up, "
            "and restore it, with that database's own tools, and the files of card_store.blobs_url "
            "with its bucket's"
        )
    return pathlib.Path(url.database).absolute()


def _reading(path: pathlib.Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def _settle(part: pathlib.Path, target: pathlib.Path) -> None:
    """Moves a finished database to its place, its write-ahead log emptied into it."""
    with _database_errors(), contextlib.closing(sqlite3.connect(part)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    with part.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(part, target)


@contextlib.contextmanager
def _database_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise errors.UnavailableError(
            f"the catalogue can't be copied: {error}; is there space on the disk?"
        ) from error
