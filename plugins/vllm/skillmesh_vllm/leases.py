"""What each of several processes uses of one folder, told to the others.

A lease is an empty file named after its process and what it uses. A process is alive as long as it
holds a lock of the kernel's, so the leases of one that was killed count for nothing.
"""

from __future__ import annotations

import fcntl
import os
import pathlib
import tempfile
import threading


class Leases:
    """Those of this process, and a look at the others'."""

    def __init__(self, root: pathlib.Path) -> None:
        """Takes where leases lie, for all processes; it is made when it is needed."""
        self._root = root
        self._opening = threading.Lock()
        self._own: pathlib.Path | None = None
        self._file = -1
        """Open, and locked, as long as this process lives."""

    def take(self, name: str) -> None:
        """Tells the others that this process uses something, by a file name without a dot."""
        with self._opening:
            if self._own is None:
                self._root.mkdir(parents=True, exist_ok=True)
                self._file, path = tempfile.mkstemp(dir=self._root)
                fcntl.flock(self._file, fcntl.LOCK_EX)
                self._own = pathlib.Path(path)
        self._lease(self._own, name).touch()

    def end(self, name: str) -> None:
        """Tells them that it no longer does."""
        if self._own is not None:
            self._lease(self._own, name).unlink(missing_ok=True)

    def is_taken(self, name: str) -> bool:
        """Whether any process that is alive uses it."""
        for lease in self._root.glob(f"*.{name}"):
            owner = lease.with_suffix("")
            if owner == self._own or _is_alive(owner):
                return True
            lease.unlink(missing_ok=True)
            owner.unlink(missing_ok=True)
        return False

    def _lease(self, owner: pathlib.Path, name: str) -> pathlib.Path:
        return owner.with_suffix(f".{name}")


def _is_alive(owner: pathlib.Path) -> bool:
    try:
        file = os.open(owner, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
