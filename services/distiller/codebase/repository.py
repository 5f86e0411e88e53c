"""`Repository`: a git repository on this machine, its files and what git says of them.

Only reads. A file is opened without following a link, neither at its own name nor at a folder on
the way, so that nothing outside the repository is ever read. What of it is fit to learn is the
business of `sources`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import stat
from collections.abc import Sequence

from services.distiller.codebase import git
from shared import errors

LINK, SUBMODULE, FILE = "120000", "160000", "100644"
"""Modes of git's index."""
_READING = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_ATTRIBUTES = ("linguist-generated", "linguist-vendored")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A file that git knows or does not ignore."""

    path: str
    """Within the repository, with slashes."""
    mode: str
    """Of git's index, such as `100644`; `FILE` where it is not tracked."""


class UnreadableError(Exception):
    """A file that is not read; the message is the reason, in a few words."""


@dataclasses.dataclass(frozen=True)
class Repository:
    """One repository at one commit."""

    root: pathlib.Path
    """Of its work tree."""
    name: str
    """Of its folder as it was named, in the case of a link the link's."""
    commit: str
    """Full id of HEAD."""

    @classmethod
    def open(cls, path: pathlib.Path) -> Repository:
        """The repository whose work tree a folder is.

        Raises:
            errors.InvalidInputError: the folder is not the root of a work tree, belongs to another
                user, or has no commit yet.
        """
        if not path.is_dir():
            raise errors.InvalidInputError(f"{path}: there is no such folder; name a repository")
        root = path.resolve()
        if not (root / ".git").exists():
            raise errors.InvalidInputError(_why_none(path, root))
        top = git.run(root, ["rev-parse", "--show-toplevel"]).decode(errors="surrogateescape")
        if pathlib.Path(top.rstrip("\n")).resolve() != root:
            raise errors.InvalidInputError(
                f"{path}: its configuration (core.worktree) puts its files elsewhere; name the"
                " folder with the files"
            )
        try:
            commit = git.run(root, ["rev-parse", "--verify", "HEAD^{commit}"]).decode().strip()
        except errors.InvalidInputError:
            raise errors.InvalidInputError(
                f"{path}: the repository has no commit yet; commit what is to be learned"
            ) from None
        # A name may be of bytes that are no text.
        name = (path.name or root.name).encode(errors="replace").decode()
        return cls(root=root, name=name, commit=commit)

    def entries(self) -> list[Entry]:
        """The tracked files and those that are neither tracked nor ignored, by path."""
        found: dict[str, Entry] = {}
        for record in _records(git.run(self.root, ["ls-files", "-z", "--cached", "--stage"])):
            head, _, path = record.partition("\t")
            found.setdefault(path, Entry(path, head.split(" ", 1)[0]))
        others = git.run(self.root, ["ls-files", "-z", "--others", "--exclude-standard"])
        for path in _records(others):
            mode = SUBMODULE if path.endswith("/") else FILE
            found.setdefault(path, Entry(path.rstrip("/"), mode))
        return sorted(found.values(), key=lambda entry: entry.path)

    def generated_or_vendored(self, paths: Sequence[str]) -> dict[str, str]:
        """The paths that `.gitattributes` calls generated or vendored, with which of the two."""
        if not paths:
            return {}
        given = b"".join(os.fsencode(path) + b"\0" for path in paths)
        told = _records(git.run(self.root, ["check-attr", "-z", "--stdin", *_ATTRIBUTES], given))
        found = {}
        for path, attribute, value in zip(told[::3], told[1::3], told[2::3], strict=True):
            if value in ("set", "true"):
                found[path] = attribute.removeprefix("linguist-")
        return found

    def read(self, path: str, most_bytes: int) -> bytes:
        """The bytes of a file of the work tree.

        Args:
            path: within the repository.
            most_bytes: a larger file is not read.

        Raises:
            UnreadableError: it is gone, a link, lies behind one, is too large or no plain file.
        """
        opened = self._opened(path)
        with os.fdopen(opened, "rb") as file:
            status = os.fstat(opened)
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableError("not a plain file")
            if status.st_size > most_bytes:
                raise UnreadableError("too large")
            try:
                data = file.read(most_bytes + 1)
            except OSError as error:
                raise UnreadableError(f"cannot be read: {error.strerror}") from None
        if len(data) > most_bytes:
            raise UnreadableError("too large")
        return data

    def _opened(self, path: str) -> int:
        """Goes down folder by folder: a link that takes the place of one meanwhile leads nowhere.

        Raises:
            UnreadableError: as of `read`.
        """
        *folders, name = path.split("/")
        if not {"", ".", ".."}.isdisjoint((*folders, name)):
            raise UnreadableError("lies outside the repository")
        with contextlib.ExitStack() as open_folders:
            at: int | None = None
            where: str | pathlib.Path = self.root
            try:
                for folder in folders:
                    at = _folder(where, at, open_folders)
                    where = folder
                at = _folder(where, at, open_folders)
            except OSError as error:
                linked = _is_link(where, at)
                why = "lies behind a symbolic link" if linked else _unread(error)
                raise UnreadableError(why) from None
            try:
                # Not blocking: a pipe without a writer would hold the whole extraction.
                return os.open(name, _READING | os.O_NONBLOCK, dir_fd=at)
            except OSError as error:
                why = "symbolic link" if _is_link(name, at) else _unread(error)
                raise UnreadableError(why) from None


def _folder(where: str | pathlib.Path, within: int | None, kept: contextlib.ExitStack) -> int:
    opened = os.open(where, _READING | os.O_DIRECTORY, dir_fd=within)
    kept.callback(os.close, opened)
    return opened


def _is_link(where: str | pathlib.Path, within: int | None) -> bool:
    try:
        return stat.S_ISLNK(os.stat(where, dir_fd=within, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _unread(error: OSError) -> str:
    return f"cannot be read: {error.strerror}"


def _records(data: bytes) -> list[str]:
    return [os.fsdecode(record) for record in data.split(b"\0") if record]


def _why_none(path: pathlib.Path, root: pathlib.Path) -> str:
    if (root / "HEAD").is_file() and (root / "objects").is_dir():
        return f"{path}: a bare repository has no files to read; clone it and name the clone"
    for folder in root.parents:
        if (folder / ".git").exists():
            return f"{path}: lies within the repository {folder}; name that folder"
    return f"{path}: not a git repository; run git init and commit what is to be learned"
