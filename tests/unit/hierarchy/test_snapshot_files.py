"""Snapshots as files to fetch."""

from __future__ import annotations

import hashlib
import pathlib

import pyarrow as pa
import pytest

from services.hierarchy import snapshot_files
from shared import errors


def test_newest_few_can_be_fetched_when_many_were_published(tmp_path: pathlib.Path) -> None:
    files = snapshot_files.SnapshotFiles(tmp_path / "snapshots", kept=2)
    assert files.newest is None
    tickets = [files.publish(version, b"layers of %d" % version) for version in range(4)]
    assert files.newest == tickets[-1]
    assert tickets[3].digest == hashlib.sha256(b"layers of 3").hexdigest()
    for ticket in tickets[:2]:
        with pytest.raises(errors.NotFoundError, match=ticket.digest):
            files.path(ticket.digest)
    assert [files.path(one.digest).read_bytes() for one in tickets[2:]] == [
        b"layers of 2",
        b"layers of 3",
    ]
    assert len(list((tmp_path / "snapshots").iterdir())) == 2


def test_file_stays_when_a_later_version_has_the_same_content(tmp_path: pathlib.Path) -> None:
    files = snapshot_files.SnapshotFiles(tmp_path, kept=2)
    for version, data in enumerate([b"same", b"other", b"same"]):
        ticket = files.publish(version, data)
    assert ticket.version == 2 and files.path(ticket.digest).read_bytes() == b"same"


def test_reader_sees_all_of_a_file_when_it_was_dropped_meanwhile(tmp_path: pathlib.Path) -> None:
    files = snapshot_files.SnapshotFiles(tmp_path, kept=1)
    with pa.memory_map(str(files.path(files.publish(1, b"old").digest))) as opened:
        files.publish(2, b"new")
        assert opened.read() == b"old"


def test_leftovers_are_gone_when_the_service_starts_again(tmp_path: pathlib.Path) -> None:
    ticket = snapshot_files.SnapshotFiles(tmp_path, kept=1).publish(1, b"old")
    again = snapshot_files.SnapshotFiles(tmp_path, kept=1)
    assert again.newest is None and not list(tmp_path.iterdir())
    with pytest.raises(errors.NotFoundError):
        again.path(ticket.digest)
