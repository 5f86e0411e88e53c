"""Snapshots as the files that nodes fetch by ticket: the newest few, by digest.

Kept on disk and mapped when they are sent: one of a large base has a hundred megabytes. What is
lost with the folder is written again from the hierarchy's own state.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import threading

from shared import atomic, errors

_ENDING = ".arrow"


@dataclasses.dataclass(frozen=True)
class Ticket:
    """Names the file of one snapshot."""

    version: int
    digest: str
    """SHA-256 in lower-case hex."""
    size_bytes: int


class SnapshotFiles:
    """Safe to use from several threads."""

    def __init__(self, folder: pathlib.Path, kept: int) -> None:
        """Empties the folder.

        Args:
            folder: for these files alone.
            kept: so many of the newest can be fetched.

        Raises:
            errors.ConfigError: the folder can't be made or emptied.
        """
        self._folder, self._kept = folder, kept
        self._lock = threading.Lock()
        self._tickets: list[Ticket] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for leftover in folder.iterdir():
                leftover.unlink()
        except OSError as error:
            raise errors.ConfigError(
                f"hierarchy: can't use {folder}: {error}; check cluster.state_dir"
            ) from error

    @property
    def newest(self) -> Ticket | None:
        """The ticket to give out; None before the first snapshot."""
        with self._lock:
            return self._tickets[-1] if self._tickets else None

    def publish(self, version: int, data: bytes) -> Ticket:
        """Makes a snapshot's file the newest.

        Raises:
            errors.UnavailableError: it can't be written.
        """
        ticket = Ticket(version, hashlib.sha256(data).hexdigest(), len(data))
        try:
            atomic.write(self._path(ticket.digest), data)
        except OSError as error:
            raise errors.UnavailableError(
                f"hierarchy: can't write a snapshot to {self._folder}: {error}"
            ) from error
        with self._lock:
            self._tickets.append(ticket)
            gone, self._tickets = self._tickets[: -self._kept], self._tickets[-self._kept :]
            needed = {one.digest for one in self._tickets}
        for old in gone:
            if old.digest not in needed:
                # Whoever maps it keeps it until the last byte is sent.
                self._path(old.digest).unlink(missing_ok=True)
        return ticket

    def path(self, digest: str) -> pathlib.Path:
        """The file of a ticket.

        Raises:
            errors.NotFoundError: there is none, or none any more.
        """
        with self._lock:
            if any(ticket.digest == digest for ticket in self._tickets):
                return self._path(digest)
        raise errors.NotFoundError(
            f"no snapshot here has the digest {digest}; the newest ones alone are kept: ask for "
            "the newest ticket"
        )

    def _path(self, digest: str) -> pathlib.Path:
        return self._folder / f"{digest}{_ENDING}"
