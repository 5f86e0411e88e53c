from __future__ import annotations

import errno
import pathlib
from collections.abc import Iterator

import pytest

from services.hierarchy import journal
from shared import atomic, errors


@pytest.fixture
def kept(tmp_path: pathlib.Path) -> Iterator[journal.Journal]:
    opened = journal.Journal(tmp_path)
    yield opened
    opened.close()


def files(folder: pathlib.Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()} - {"lock"}


def test_nothing_is_there_when_it_is_new(kept: journal.Journal) -> None:
    assert kept.newest() is None and list(kept.waiting()) == []


def test_newest_tick_is_what_was_committed_last(kept: journal.Journal) -> None:
    for tick in (1, 2, 10):
        kept.commit(tick, b"state %d" % tick, [], [])
    assert kept.newest() == 10 and kept.read(10) == b"state 10"


def test_files_that_no_part_lies_in_are_removed(
    kept: journal.Journal, tmp_path: pathlib.Path
) -> None:
    kept.commit(1, b"one", [], [])
    kept.commit(2, b"two", [1], [])
    kept.commit(3, b"three", [1], [])
    assert files(tmp_path) == {"state-000000000000001.arrow", "state-000000000000003.arrow"}


def test_what_waits_is_there_after_a_restart_until_a_tick_takes_it(tmp_path: pathlib.Path) -> None:
    first = journal.Journal(tmp_path)
    first.keep("b.1", b"later")
    first.keep("a.1", b"sooner")
    first.close()
    second = journal.Journal(tmp_path)
    assert list(second.waiting()) == [("a.1", b"sooner"), ("b.1", b"later")]
    second.commit(1, b"state", [], ["a.1", "of a lost file"])
    assert [name for name, _ in second.waiting()] == ["b.1"]
    second.close()


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "waiting").mkdir()
    for leftover in (tmp_path / ".abc.part", tmp_path / "waiting" / ".def.part"):
        leftover.write_bytes(b"half")
    journal.Journal(tmp_path).close()
    assert files(tmp_path) == set()


def test_folder_is_refused_when_another_has_it(
    kept: journal.Journal, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(errors.PreconditionError, match="belongs to another process"):
        journal.Journal(tmp_path)


def test_folder_is_refused_when_it_cannot_be_made(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(errors.ConfigError, match=r"check cluster\.state_dir"):
        journal.Journal(tmp_path / "file" / "folder")


@pytest.mark.parametrize("at", [0, 7, -1])
def test_state_is_refused_when_a_bit_of_it_changed(
    kept: journal.Journal, tmp_path: pathlib.Path, at: int
) -> None:
    kept.commit(1, b"a state that is kept", [], [])
    path = tmp_path / "state-000000000000001.arrow"
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(errors.IntegrityError, match="its checksum differs"):
        kept.read(1)


def test_state_is_refused_when_its_file_is_gone(kept: journal.Journal) -> None:
    with pytest.raises(errors.IntegrityError, match="can't read"):
        kept.read(4)


@pytest.mark.parametrize(
    ("code", "error"),
    [(errno.ENOSPC, errors.OverloadedError), (errno.EIO, errors.UnavailableError)],
)
@pytest.mark.parametrize("call", ["_sync_folder", "os.fsync"])
def test_earlier_state_stands_when_the_disk_fails(
    kept: journal.Journal,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    error: type[errors.SkillmeshError],
    call: str,
) -> None:
    kept.keep("a.1", b"waits")
    kept.commit(1, b"one", [], [])
    before = files(tmp_path)

    def fail(_: object) -> None:
        raise OSError(code, "injected")

    monkeypatch.setattr(f"{atomic.__name__}.{call}", fail)
    with pytest.raises(error):
        kept.commit(2, b"two", [], ["a.1"])
    with pytest.raises(error):
        kept.keep("a.2", b"does not wait")
    assert files(tmp_path) == before and kept.read(1) == b"one"
