"""Folders made once, kept within a budget."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

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
    clock, given_up = Clock(), list[str]()
    folders = cache.FolderCache(tmp_path, 250, clock)
    folders.give_up = lambda name: not given_up.append(name)
    for letter in ("a", "b", "a", "c", "c"):
        folders.folder(digest(letter), fill)
        clock.now += HOUR
    assert names(tmp_path) == [digest("a"), digest("c")]
    assert given_up == [digest("b")]


def test_a_folder_stays_when_it_was_handed_out_a_moment_ago(tmp_path: pathlib.Path) -> None:
    clock, given_up = Clock(), list[str]()
    folders = cache.FolderCache(tmp_path, 150, clock)
    folders.give_up = lambda name: not given_up.append(name)
    folders.folder(digest("a"), fill)
    clock.now += 1
    folders.folder(digest("b"), fill)
    assert given_up == []


def test_a_folder_stays_when_it_was_given_up_a_moment_ago(tmp_path: pathlib.Path) -> None:
    clock = Clock()
    folders = cache.FolderCache(tmp_path, 150, clock)
    for letter, pause_s in (("a", HOUR), ("b", 60.0), ("b", 0.0)):
        folders.folder(digest(letter), fill)
        clock.now += pause_s
    assert names(tmp_path) == [digest("a"), digest("b")]
    clock.now += HOUR
    folders.folder(digest("b"), fill)
    assert names(tmp_path) == [digest("b")]


def test_a_folder_stays_when_it_was_handed_out_again_after_it_was_given_up(
    tmp_path: pathlib.Path,
) -> None:
    clock, given_up = Clock(), list[str]()
    folders = cache.FolderCache(tmp_path, 150, clock)
    folders.give_up = lambda name: not given_up.append(name)
    for letter, pause_s in (("a", HOUR), ("b", 1.0), ("a", HOUR), ("b", 0.0)):
        folders.folder(digest(letter), fill)
        clock.now += pause_s
    assert names(tmp_path) == [digest("a"), digest("b")]
    assert given_up == [digest("a"), digest("a")]


def test_a_folder_stays_when_it_can_not_be_given_up(tmp_path: pathlib.Path) -> None:
    clock = Clock()
    folders = cache.FolderCache(tmp_path, 150, clock)
    folders.give_up = lambda name: name != digest("a")
    for letter in ("a", "b", "c", "c"):
        folders.folder(digest(letter), fill)
        clock.now += HOUR
    assert names(tmp_path) == [digest("a"), digest("c")]


def test_a_folder_stays_when_another_process_uses_it_and_goes_when_that_was_killed(
    tmp_path: pathlib.Path,
) -> None:
    script = (
        "import pathlib, sys\n"
        "from skillmesh_vllm import cache\n"
        "folders = cache.FolderCache(pathlib.Path(sys.argv[1]), 150, lambda: 1_000_000.0)\n"
        "folders.folder(sys.argv[2], lambda folder: None)\n"
        "print(flush=True)\n"
        "sys.stdin.read()\n"
    )
    clock = Clock()
    folders = cache.FolderCache(tmp_path, 150, clock)
    folders.folder(digest("a"), fill)
    package = pathlib.Path(cache.__file__).parents[1]
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), digest("a")],
        cwd=package,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None and other.stdout.readline()
        for _ in range(3):
            clock.now += HOUR
            folders.folder(digest("b"), fill)
        assert names(tmp_path) == [digest("a"), digest("b")]
        other.kill()
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
