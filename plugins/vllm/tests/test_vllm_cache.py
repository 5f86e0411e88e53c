"""Folders made once, kept within a budget."""

from __future__ import annotations

import os
import pathlib

import pytest
from skillmesh_vllm import cache

HOUR = 3600.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def digest(letter: str) -> str:
    return letter * 64


def fill(folder: pathlib.Path) -> None:
    (folder / "weights").write_bytes(b"x" * 100)


def names(root: pathlib.Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if not path.name.startswith(".locks"))


def fail(folder: pathlib.Path) -> None:
    fill(folder)
    raise OSError("disk full")


def test_a_folder_is_made_once_when_it_is_asked_for_again(tmp_path: pathlib.Path) -> None:
    made: list[pathlib.Path] = []

    def make(folder: pathlib.Path) -> None:
        made.append(folder)
        fill(folder)

    folders = cache.FolderCache(tmp_path / "cache", 1000)
    first = folders.folder(digest("a"), make)
    again = cache.FolderCache(tmp_path / "cache", 1000).folder(digest("a"), make)
    assert first == again == tmp_path / "cache" / digest("a")
    assert len(made) == 1 and (first / "weights").stat().st_size == 100


def test_nothing_is_kept_when_making_a_folder_fails(tmp_path: pathlib.Path) -> None:
    folders = cache.FolderCache(tmp_path, 1000)
    with pytest.raises(OSError, match="disk full"):
        folders.folder(digest("a"), fail)
    assert names(tmp_path) == []
    assert folders.folder(digest("a"), fill).is_dir()


def test_what_was_used_longest_ago_goes_when_the_budget_is_passed(tmp_path: pathlib.Path) -> None:
    clock, gone = Clock(), []
    folders = cache.FolderCache(tmp_path, 250, clock)
    folders.before_removal = gone.append
    for letter in ("a", "b", "a", "c"):
        folders.folder(digest(letter), fill)
        clock.now += HOUR
    assert names(tmp_path) == [digest("a"), digest("c")]
    assert gone == [digest("b")]


def test_a_folder_stays_when_it_was_handed_out_a_moment_ago(tmp_path: pathlib.Path) -> None:
    clock = Clock()
    folders = cache.FolderCache(tmp_path, 150, clock)
    folders.folder(digest("a"), fill)
    clock.now += 1
    folders.folder(digest("b"), fill)
    assert names(tmp_path) == [digest("a"), digest("b")]
    clock.now += HOUR
    folders.folder(digest("b"), fill)
    assert names(tmp_path) == [digest("b")]


def test_what_a_killed_process_left_goes_when_it_is_old(tmp_path: pathlib.Path) -> None:
    clock = Clock()
    for name, age_s in ((".part-old", 2 * HOUR), (".part-new", 1.0)):
        part = tmp_path / name
        part.mkdir()
        fill(part)
        os.utime(part, (clock.now - age_s, clock.now - age_s))
    cache.FolderCache(tmp_path, 1000, clock).folder(digest("a"), fill)
    assert names(tmp_path) == [".part-new", digest("a")]
