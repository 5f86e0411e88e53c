from __future__ import annotations

import os
import pathlib
import shutil

import pytest

from shared import retention

DAY_S = 86_400.0
NOW_S = 1_000 * DAY_S


def task(folder: pathlib.Path, name: str, days_ago: float) -> pathlib.Path:
    path = folder / name
    (path / "inner").mkdir(parents=True)
    (path / "inner" / "result.json").write_text("{}")
    for one in (path / "inner" / "result.json", path / "inner", path):
        os.utime(one, (NOW_S - days_ago * DAY_S,) * 2)
    return path


def test_only_tasks_that_nobody_touched_for_long_are_removed(tmp_path: pathlib.Path) -> None:
    old, young, skills = (
        task(tmp_path, "old", 31), task(tmp_path, "young", 29), task(tmp_path, "skills", 99),
    )  # fmt: skip
    used = task(tmp_path, "used", 99)
    os.utime(used / "inner" / "result.json", (NOW_S, NOW_S))
    (tmp_path / "file").write_text("")
    assert retention.remove_old(tmp_path, 30, NOW_S, kept=("skills",)) == 1
    assert not old.exists()
    assert young.exists() and skills.exists() and used.exists() and (tmp_path / "file").exists()


def test_everything_stays_when_no_days_are_set(tmp_path: pathlib.Path) -> None:
    old = task(tmp_path, "old", 999)
    assert retention.remove_old(tmp_path, 0, NOW_S) == 0 and old.exists()
    assert retention.remove_old(tmp_path / "missing", 30, NOW_S) == 0


def test_nothing_behind_a_link_is_removed(tmp_path: pathlib.Path) -> None:
    outside = task(tmp_path / "outside", "old", 99)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "link").symlink_to(outside)
    assert retention.remove_old(tmp_path / "tasks", 30, NOW_S) == 0 and outside.exists()


def test_others_are_removed_when_one_can_not_be(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, old = task(tmp_path, "stuck", 99), task(tmp_path, "old", 99)
    remove = shutil.rmtree

    def refused(path: pathlib.Path) -> None:
        if path == stuck:
            raise PermissionError("not yours")
        remove(path)

    monkeypatch.setattr(shutil, "rmtree", refused)
    assert retention.remove_old(tmp_path, 30, NOW_S) == 1
    assert stuck.exists() and not old.exists()
