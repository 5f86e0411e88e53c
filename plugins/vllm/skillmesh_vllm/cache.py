"""Adapter folders on disk, one a digest, made once, within a budget.

Several threads and several processes may share it: who wants a folder that another is making
waits for it. A folder goes in two steps, since vLLM's engine dies of one that it finds missing:
first nobody is pointed to it any more, and when those who were have had their time it is removed.
Knows neither cards nor the store.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator

from skillmesh_vllm import leases

_log = logging.getLogger("vllm.plugins.skillmesh")
_PART = ".part-"
_LOCKS, _LEASES = ".locks", "leases"
_SETTLING_S = 60.0
"""A folder that was handed out is not given up sooner: vLLM is reading it."""
_DRAINING_S = 600.0
"""One that was given up is not removed sooner: a request that waits for its turn may need it. By
default OpenAI's clients wait as long for an answer."""
_ABANDONED_S = 3600.0


class FolderCache:
    """The folders below one root."""

    def __init__(
        self, root: pathlib.Path, most_bytes: int, clock_s: Callable[[], float] = time.time
    ) -> None:
        """Takes the root, which is made when it is needed.

        Args:
            root: where the folders lie, and nothing else.
            most_bytes: beyond this, those that were not used for longest are removed.
            clock_s: Unix time.
        """
        self._root = root.absolute()
        self._most_bytes = most_bytes
        self._clock_s = clock_s
        self._leases = leases.Leases(self._root / _LOCKS / _LEASES)
        """Of the folders that were handed out; taken and ended where the digest is locked."""
        self._given_up_at_s: dict[str, float] = {}
        self.give_up: Callable[[str], bool] = lambda digest: True
        """Has nobody pointed to a digest's folder any more; whether that is so."""

    def folder(self, digest: str, make: Callable[[pathlib.Path], None]) -> pathlib.Path:
        """The folder of a digest; it is whole, or it is not there.

        Args:
            digest: SHA-256 in lower-case hex; it becomes the folder's name.
            make: fills an empty folder; what it raises is raised here, and nothing is kept.

        Raises:
            OSError: the disk is full, or can't be written.
        """
        path = self._root / digest
        (self._root / _LOCKS).mkdir(parents=True, exist_ok=True)
        with self._locked(digest):
            if not path.is_dir():
                part = pathlib.Path(tempfile.mkdtemp(prefix=_PART, dir=self._root))
                try:
                    make(part)
                    part.chmod(0o755)  # vLLM's workers may run as somebody else.
                    os.rename(part, path)
                except BaseException:
                    shutil.rmtree(part, ignore_errors=True)
                    raise
            self._leases.take(digest)
            self._touch(path)
        self._remove_oldest()
        return path

    @contextlib.contextmanager
    def _locked(self, digest: str) -> Iterator[None]:
        # A lock of the kernel's, which dies with its process. Few files, never removed: a lock
        # on a removed one would exclude nobody.
        with (self._root / _LOCKS / digest[:2]).open("wb") as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX)
            yield

    def _touch(self, path: pathlib.Path) -> None:
        now = self._clock_s()
        os.utime(path, (now, now))

    def _remove_oldest(self) -> None:
        found, now = [], self._clock_s()
        for path in self._root.iterdir():
            # Another process was here first, or somebody left a file of his own.
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                used_at = path.stat().st_mtime
                if path.name.startswith(_PART):
                    if now - used_at > _ABANDONED_S:
                        shutil.rmtree(path, ignore_errors=True)
                elif path.name != _LOCKS:
                    size = sum(file.stat().st_size for file in path.iterdir())
                    found.append((used_at, size, path))
        held = sum(size for _, size, _ in found)
        for used_at, size, path in sorted(found):
            if held <= self._most_bytes or now - used_at < _SETTLING_S:
                return
            if self._is_going(path, used_at, now):
                held -= size

    def _is_going(self, path: pathlib.Path, used_at: float, now: float) -> bool:
        """Takes the next step with a folder that is too much; whether it goes or is gone."""
        digest = path.name
        given_up_at = self._given_up_at_s.get(digest, -1.0)
        if given_up_at < used_at:  # Not yet, or handed out again since.
            if not self.give_up(digest):
                return False
            self._given_up_at_s[digest] = now
            return True
        if now - given_up_at < _DRAINING_S:
            return True
        with self._locked(digest), contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime > used_at:
                return False
            self._leases.end(digest)
            if self._leases.is_taken(digest):
                return False
            # Out of sight in one step: half a folder must never be found by its digest.
            gone = pathlib.Path(tempfile.mkdtemp(prefix=_PART, dir=self._root))
            os.rename(path, gone / digest)
            shutil.rmtree(gone, ignore_errors=True)
            _log.info("adapter %s left the cache", digest[:12])
        self._given_up_at_s.pop(digest, None)
        return True
