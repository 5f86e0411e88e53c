from __future__ import annotations

import pathlib
from collections.abc import Mapping

import pytest
import torch

from services.hierarchy import archive, journal
from shared import errors


def parts(**values: float) -> dict[str, dict[str, torch.Tensor]]:
    return {name: {"w": torch.full((4,), value)} for name, value in values.items()}


def loaded(folder: pathlib.Path) -> archive.Archive:
    opened = journal.Journal(folder)
    read = archive.Archive(opened)
    assert read.load()
    opened.close()
    return read


def keep(version: int) -> Mapping[int, list[str]]:
    return {version: ["fast", "slow"]}


def test_state_is_the_same_after_a_restart(tmp_path: pathlib.Path) -> None:
    opened = journal.Journal(tmp_path)
    kept = archive.Archive(opened)
    assert not kept.load()
    kept.commit(parts(fast=0.1, slow=0.2), {"tick": 1}, {})
    kept.commit(parts(fast=0.3, slow=0.2), {"tick": 2, "x": 0.1 + 0.2}, {})
    opened.close()
    again = loaded(tmp_path).committed
    assert again.digest() == kept.committed.digest()
    assert again.number == 2 and again.values == {"tick": 2, "x": 0.1 + 0.2}


def test_only_what_changed_is_written(tmp_path: pathlib.Path) -> None:
    opened = journal.Journal(tmp_path)
    kept = archive.Archive(opened)
    large = {"w": torch.zeros(100_000)}
    kept.commit({"large": large, **parts(fast=0.0)}, {}, {})
    first = opened.written.size_bytes
    kept.commit({"large": {"w": large["w"].clone()}, **parts(fast=1.0)}, {}, {})
    assert opened.written.size_bytes - first < 10_000 < 400_000 < first
    assert kept.committed.lies == {"fast": 2, "large": 1}
    assert kept.committed.parts["large"]["w"] is large["w"]
    opened.close()


def test_zero_of_another_sign_is_a_change(tmp_path: pathlib.Path) -> None:
    kept = archive.Archive(None)
    kept.commit(parts(fast=0.0), {}, {})
    kept.commit(parts(fast=-0.0), {}, {})
    assert kept.committed.lies == {"fast": 2}


def test_kept_snapshots_are_read_from_where_they_lie(tmp_path: pathlib.Path) -> None:
    opened = journal.Journal(tmp_path)
    kept = archive.Archive(opened)
    kept.commit(parts(fast=1.0, slow=1.0), {}, keep(1))
    kept.commit(parts(fast=2.0, slow=1.0), {}, keep(1) | keep(2))
    kept.commit(parts(fast=3.0, slow=3.0), {}, keep(1) | keep(2) | keep(3))
    opened.close()
    again = loaded(tmp_path)
    for version, fast, slow in ((1, 1.0, 1.0), (2, 2.0, 1.0), (3, 3.0, 3.0)):
        found = again.parts_of(version)
        assert (found["fast"]["w"][0], found["slow"]["w"][0]) == (fast, slow)


def test_files_go_when_no_kept_snapshot_lies_in_them(tmp_path: pathlib.Path) -> None:
    opened = journal.Journal(tmp_path)
    kept = archive.Archive(opened)
    for tick in range(1, 30):
        window = range(max(1, tick - 2), tick + 1)
        kept.commit(
            parts(fast=tick, slow=tick // 10),
            {},
            {version: ["fast", "slow"] for version in window},
        )
    opened.close()
    numbers = sorted(int(path.stem[-15:]) for path in tmp_path.glob("state-*"))
    assert numbers == [20, 27, 28, 29]
    with pytest.raises(errors.NotFoundError, match="snapshot 26 is not kept"):
        kept.parts_of(26)


def test_earlier_state_stands_when_a_commit_fails(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = journal.Journal(tmp_path)
    kept = archive.Archive(opened)
    kept.commit(parts(fast=1.0), {}, {})
    before = kept.committed
    monkeypatch.setattr(opened, "_write", _full)
    with pytest.raises(errors.OverloadedError):
        kept.commit(parts(fast=2.0), {}, {})
    opened.close()
    assert kept.committed is before and loaded(tmp_path).committed.digest() == before.digest()


def test_pinned_snapshot_is_held_in_memory_when_there_is_no_disk() -> None:
    kept = archive.Archive(None)
    kept.commit(parts(fast=1.0, slow=1.0), {}, keep(1), pin=-1)
    kept.commit(parts(fast=2.0, slow=1.0), {}, keep(1), pin=1)
    kept.commit(parts(fast=3.0, slow=1.0), {}, keep(1) | keep(2), pin=1)
    assert kept.parts_of(1)["fast"]["w"][0] == 1.0
    kept.commit(parts(fast=4.0, slow=1.0), {}, keep(1) | keep(2) | keep(3), pin=3)
    with pytest.raises(errors.NotFoundError, match="its weights alone"):
        kept.parts_of(1)


def test_part_without_tensors_is_a_part() -> None:
    kept = archive.Archive(None)
    kept.commit({"empty": {}}, {}, {})
    assert kept.committed.parts == {"empty": {}}


def _full(*_: object) -> None:
    raise errors.OverloadedError("no room")
