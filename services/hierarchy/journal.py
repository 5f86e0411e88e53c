"""Keeps on disk what the hierarchy must not lose: its state, and what waits for a tick.

A state is one file, and its appearing under its name is the commit: the newest file is the state.
It holds the parts that changed and says in which older files the others lie; files that no part
of the newest state lies in are removed. What waits, submissions and offered
circuits, is one file each, on disk before it is acknowledged and removed after the tick that took
it; one that a crash left behind is known by its number, which the state remembers. Knows nothing
of what the bytes mean.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import pathlib
import re
import zlib
from collections.abc import Callable, Collection, Iterator

from shared import atomic, errors

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_STATE = re.compile(r"state-(\d{15})\.arrow")
_CHECKSUM_BYTES = 4


@dataclasses.dataclass
class Written:
    """What this journal wrote since it was opened."""

    files: int = 0
    size_bytes: int = 0


class Journal:
    """The folder of one hierarchy."""

    def __init__(self, folder: pathlib.Path, at: Callable[[str], None] = lambda point: None):
        """Takes the folder, which is made where missing, for this process alone.

        Args:
            folder: where everything lies.
            at: called with the name of each point that a crash may fall on.

        Raises:
            errors.PreconditionError: another process has it.
            errors.ConfigError: it can't be made or written.
        """
        self._folder = folder
        self._waiting = folder / "waiting"
        self._at = at
        self.written = Written()
        try:
            self._waiting.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / "lock").open("ab")
        except OSError as error:
            raise errors.ConfigError(
                f"hierarchy: can't write {folder}: {error}; check cluster.state_dir"
            ) from error
        try:
            fcntl.flock(self._lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise errors.PreconditionError(
                f"hierarchy: {folder} belongs to another process; stop it first"
            ) from error
        for leftover in [*folder.glob(".*.part"), *self._waiting.glob(".*.part")]:
            leftover.unlink()  # Of a process that was killed while it wrote.

    def close(self) -> None:
        """Lets another process have the folder."""
        self._lock.close()

    def newest(self) -> int | None:
        """The number of the last state that was committed; None before the first."""
        return max(self._numbers(), default=None)

    def read(self, number: int) -> bytes:
        """What the file of a state holds.

        Raises:
            errors.IntegrityError: it is missing, or not as it was written.
        """
        return self._read(self._path(number))

    def commit(
        self, number: int, data: bytes, needed: Collection[int], taken: Collection[str]
    ) -> None:
        """Makes this the state, in one step, and removes what is needed no more.

        Args:
            number: above that of every earlier one.
            data: what `read` is to return.
            needed: the earlier states whose files hold parts of this one.
            taken: names of what waited and is part of this state.

        Raises:
            errors.OverloadedError: the disk is full; the earlier state stands as it was.
            errors.UnavailableError: another failure of the disk; the same holds.
        """
        self._at("before commit")
        self._write(self._path(number), data)
        self._at("after commit")
        # The commit stands: whatever can't be removed now is removed later.
        with contextlib.suppress(OSError):
            self.remove(taken)
            self._at("taken removed")
            for old in self._numbers() - {number, *needed}:
                self._path(old).unlink(missing_ok=True)
        self._at("old removed")

    def keep(self, name: str, data: bytes) -> None:
        """Puts something among what waits; it is on disk when this returns.

        Args:
            name: of letters, digits, '-' and '.', unique.
            data: what `waiting` is to return.

        Raises:
            errors.OverloadedError: the disk is full; nothing was kept.
            errors.UnavailableError: another failure of the disk; nothing was kept.
        """
        self._write(self._waiting / name, data)

    def waiting(self) -> Iterator[tuple[str, bytes]]:
        """What waits, by name.

        Raises:
            errors.IntegrityError: one is not as it was written.
        """
        for path in sorted(self._waiting.iterdir()):
            yield path.name, self._read(path)

    def remove(self, names: Collection[str]) -> None:
        """Removes some of what waits, where it is there."""
        for name in names:
            (self._waiting / name).unlink(missing_ok=True)

    def size_bytes(self) -> int:
        """Of all files."""
        return sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())

    def _path(self, number: int) -> pathlib.Path:
        return self._folder / f"state-{number:015d}.arrow"

    def _numbers(self) -> set[int]:
        found = (_STATE.fullmatch(path.name) for path in self._folder.iterdir())
        return {int(match[1]) for match in found if match}

    def _write(self, path: pathlib.Path, data: bytes) -> None:
        whole = data + zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "little")
        try:
            atomic.write(path, whole)
        except OSError as error:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)  # Where it has its name, but may not be durable.
            if error.errno in _FULL:
                raise errors.OverloadedError(
                    f"hierarchy: no room on disk for the {len(whole)} bytes of {path}; free some "
                    "and send it again"
                ) from error
            raise errors.UnavailableError(f"hierarchy: can't write {path}: {error}") from error
        self.written.files += 1
        self.written.size_bytes += len(whole)

    def _read(self, path: pathlib.Path) -> bytes:
        try:
            whole = path.read_bytes()
        except OSError as error:
            raise errors.IntegrityError(
                f"hierarchy: can't read {path}: {error}; restore the folder from a backup"
            ) from error
        data, checksum = whole[:-_CHECKSUM_BYTES], whole[-_CHECKSUM_BYTES:]
        if zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "little") != checksum:
            raise errors.IntegrityError(
                f"hierarchy: {path} is not as it was written: its checksum differs; restore the "
                "folder from a backup"
            )
        return data
