"""A repository is only read: what it names is not run, and nothing outside it is opened."""

from __future__ import annotations

import os
import subprocess

import pytest

from services.distiller.codebase import git, repository
from shared import errors
from tests.unit.distiller.codebase import made


def test_repository_tells_its_name_commit_and_files(tmp_path):
    repo = made.repo(tmp_path / "tool", {"a.py": "x = 1\n", "ä/b c.py": "y = 2\n"})
    head = subprocess.check_output(["git", "-C", str(repo.root), "rev-parse", "HEAD"], text=True)
    assert (repo.name, repo.commit) == ("tool", head.strip())
    assert [entry.path for entry in repo.entries()] == ["a.py", "ä/b c.py"]


def test_link_to_a_repository_gives_its_own_name(tmp_path):
    made.repo(tmp_path / "tool", {"a.py": "x = 1\n"})
    (tmp_path / "mine").symlink_to(tmp_path / "tool")
    assert repository.Repository.open(tmp_path / "mine").name == "mine"


def test_name_is_text_when_that_of_the_folder_is_none(tmp_path):
    repo = made.repo(tmp_path / os.fsdecode(b"t\xffl"), {"a.py": "x = 1\n"})
    assert repo.name == "t?l"
    assert repo.read("a.py", 100) == b"x = 1\n"


def test_untracked_files_are_listed_but_ignored_ones_are_not(tmp_path):
    repo = made.repo(tmp_path, {".gitignore": "*.log\nbuild/\n", "a.py": "x = 1\n"})
    made.write(tmp_path, {"new.py": "", "x.log": "", "build/b.py": ""})
    assert [entry.path for entry in repo.entries()] == [".gitignore", "a.py", "new.py"]


def test_repository_without_commits_is_refused(tmp_path):
    made.git(tmp_path, "init", "-q")
    with pytest.raises(errors.InvalidInputError, match="no commit yet"):
        repository.Repository.open(tmp_path)


@pytest.mark.parametrize("kind", ["missing", "plain", "bare", "within"])
def test_folder_that_is_no_work_tree_is_refused_with_advice(tmp_path, kind):
    folder = tmp_path / "x"
    if kind == "bare":
        subprocess.run(["git", "init", "-q", "--bare", str(folder)], check=True)
        said = "bare repository"
    elif kind == "within":
        made.repo(tmp_path, {"x/a.py": "x = 1\n"})
        said = f"within the repository {tmp_path}"
    elif kind == "plain":
        folder.mkdir()
        said = "not a git repository"
    else:
        said = "no such folder"
    with pytest.raises(errors.InvalidInputError, match=said):
        repository.Repository.open(folder)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a folder away")
def test_repository_of_another_user_is_refused_with_the_command_that_trusts_it(tmp_path):
    repo = made.repo(tmp_path, {"a.py": "x = 1\n"})
    for path in [tmp_path, tmp_path / ".git"]:
        os.chown(path, 12345, 12345)
    with pytest.raises(errors.InvalidInputError, match=r"safe\.directory"):
        repository.Repository.open(repo.root)


def test_programs_that_the_configuration_names_are_not_run(tmp_path):
    repo = made.repo(
        tmp_path / "r", {"a.py": "x = 1\n", ".gitattributes": "*.py filter=f diff=d\n"}
    )
    mark = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {mark}\n")
    program.chmod(0o755)
    for key in (
        "core.fsmonitor", "core.pager", "diff.external", "filter.f.clean", "filter.f.smudge",
        "diff.d.textconv", "core.sshCommand", "core.editor", "gpg.program",
    ):  # fmt: skip
        made.git(repo.root, "config", key, str(program))
    for hook in ("post-index-change", "fsmonitor-watchman", "reference-transaction"):
        path = repo.root / ".git/hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(program.read_text())
        path.chmod(0o755)
    again = repository.Repository.open(repo.root)
    assert [entry.path for entry in again.entries()] == [".gitattributes", "a.py"]
    assert again.generated_or_vendored(["a.py"]) == {}
    assert not mark.exists()
    # The same program is run by a git that nobody holds back.
    subprocess.run(["git", "-C", str(repo.root), "ls-files", "--others"], check=False)
    assert mark.exists()


def test_work_tree_that_the_configuration_puts_elsewhere_is_refused(tmp_path):
    repo = made.repo(tmp_path / "r", {"a.py": "x = 1\n"})
    (tmp_path / "home").mkdir()
    made.git(repo.root, "config", "core.worktree", str(tmp_path / "home"))
    with pytest.raises(errors.InvalidInputError, match=r"core\.worktree"):
        repository.Repository.open(repo.root)


def test_environment_of_a_git_hook_does_not_lead_elsewhere(tmp_path, monkeypatch):
    other = made.repo(tmp_path / "other", {"secret.py": "x = 1\n"})
    repo = made.repo(tmp_path / "r", {"a.py": "x = 1\n"})
    monkeypatch.setenv("GIT_DIR", str(other.root / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other.root))
    again = repository.Repository.open(repo.root)
    assert again == repo
    assert [entry.path for entry in again.entries()] == ["a.py"]


def test_nothing_behind_a_symbolic_link_is_read(tmp_path):
    outside = tmp_path / "outside"
    made.write(outside, {"key.py": "x = 1\n"})
    repo = made.repo(tmp_path / "r", {"a.py": "x = 1\n", "d/key.py": "y = 2\n"})
    (repo.root / "file.py").symlink_to(outside / "key.py")
    (repo.root / "loop.py").symlink_to("loop.py")
    (repo.root / "d/key.py").unlink()
    (repo.root / "d").rmdir()
    (repo.root / "d").symlink_to(outside)
    for path in ("file.py", "loop.py", "d/key.py"):
        with pytest.raises(repository.UnreadableError, match="symbolic link"):
            repo.read(path, 1000)


def test_pipe_does_not_hold_the_reading(tmp_path):
    repo = made.repo(tmp_path, {"a.py": "x = 1\n"})
    os.mkfifo(tmp_path / "pipe.py")
    with pytest.raises(repository.UnreadableError, match="not a plain file"):
        repo.read("pipe.py", 1000)


def test_file_above_the_limit_is_not_read(tmp_path):
    repo = made.repo(tmp_path, {"a.py": "x" * 11})
    assert repo.read("a.py", 11) == b"x" * 11
    with pytest.raises(repository.UnreadableError, match="too large"):
        repo.read("a.py", 10)


def test_attributes_tell_generated_and_vendored_files(tmp_path):
    attributes = (
        "gen/* linguist-generated\nlib/* linguist-vendored=true\nmine.py -linguist-vendored\n"
    )
    repo = made.repo(tmp_path, {".gitattributes": attributes})
    told = repo.generated_or_vendored(["gen/a.py", "lib/b.py", "mine.py", "x.py"])
    assert told == {"gen/a.py": "generated", "lib/b.py": "vendored"}


def test_nothing_outside_is_read_when_an_index_names_it(tmp_path):
    made.write(tmp_path, {"key.py": "x = 1\n"})
    repo = made.repo(tmp_path / "r", {"d/a.py": "x = 1\n"})
    for path in (str(tmp_path / "key.py"), "../key.py", "d/../../key.py", "d/./a.py", ""):
        with pytest.raises(repository.UnreadableError, match="outside the repository"):
            repo.read(path, 1000)


def test_link_that_takes_the_place_of_a_folder_while_it_is_read_leads_nowhere(
    tmp_path, monkeypatch
):
    made.write(tmp_path, {"outside/key.py": "secret = 1\n"})
    repo = made.repo(tmp_path / "r", {"d/key.py": "y = 2\n"})
    real = os.open

    def slow(path, *arguments, **named):
        if os.fspath(path).endswith("key.py"):
            (repo.root / "d").rename(repo.root / "old")
            (repo.root / "d").symlink_to(tmp_path / "outside")
        return real(path, *arguments, **named)

    monkeypatch.setattr(os, "open", slow)
    assert repo.read("d/key.py", 1000) == b"y = 2\n"


def test_large_blob_of_the_history_is_left_unread(tmp_path):
    repo = made.repo(tmp_path, {"a.py": "x" * 11, "b.py": "y" * 10, "a\rb.py": "z"})
    names = [f"HEAD:{name}" for name in ("a.py", "gone.py", "b.py", "a\rb.py")] + ["HEAD:"]
    assert git.blobs(tmp_path, names, 10) == {"HEAD:b.py": b"y" * 10, "HEAD:a\rb.py": b"z"}
    assert git.blobs(repo.root, names[:1], 11) == {"HEAD:a.py": b"x" * 11}
