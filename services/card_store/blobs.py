"""Immutable files named by their SHA-256: `staging/<digest>` uploaded, `blobs/<digest>` committed.

Both processes of the card store share the folder: the data plane stages, the control plane
promotes, and every step is one atomic rename, so that a process killed at any moment leaves
nothing half written in sight. Knows nothing of cards, datasets or the catalogue.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO

from shared import errors
from shared.cards import manifest as manifests

PART_SUFFIX = ".part"
STAGED_FOR_S = 24 * 3600.0
"""An upload that nobody committed in this time is dropped at the next start."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_READ_ONLY_MODE = 0o444
_READ_BYTES = 1024 * 1024


@dataclasses.dataclass(frozen=True)
class StoredFile:
    """One committed file."""

    digest: str
    size_bytes: int
    modified_s: float
    """Unix time of its commit."""


class BlobStore:
    """The folder of one card store's files."""

    def __init__(self, root: pathlib.Path) -> None:
        """Makes the folders where they are missing.

        Raises:
            errors.ConfigError: they can't be made.
        """
        self._staging, self._blobs = root / "staging", root / "blobs"
        try:
            for folder in (self._staging, self._blobs):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise errors.ConfigError(
                f"can't make the card store's folder {root}: {error}; check cluster.state_dir"
            ) from error

    def stage(self, digest: str, size_bytes: int, chunks: Iterable[bytes | memoryview]) -> None:
        """Writes a file that appears in staging only if it is what was announced.

        Args:
            digest: SHA-256 in lower-case hex.
            size_bytes: the whole file's size; nothing is kept of a longer or shorter one.
            chunks: the content in order; an error raised while iterating drops the upload.

        Raises:
            errors.InvalidInputError: the digest has another form.
            errors.IntegrityError: size or digest of the content are not those announced.
            errors.OverloadedError: the disk is full.
            errors.UnavailableError: the disk can't be written.
        """
        target = self._staging / _checked(digest)
        with self._part(digest) as file:
            _copy(chunks, file, digest, size_bytes)
            with _disk_errors(f"store {digest}"):
                file.flush()
                os.fchmod(file.fileno(), _READ_ONLY_MODE)
                os.fsync(file.fileno())
                if not (self._blobs / digest).is_file():
                    os.replace(file.name, target)
                    _sync_folder(self._staging)

    def find(self, digest: str) -> pathlib.Path | None:
        """Where a file lies, committed or only staged."""
        for folder in (self._blobs, self._staging):
            if (path := folder / _checked(digest)).is_file():
                return path
        return None

    def committed(self, digest: str) -> pathlib.Path | None:
        """Where a promoted file lies."""
        path = self._blobs / _checked(digest)
        return path if path.is_file() else None

    def promote(self, digest: str) -> pathlib.Path:
        """Moves a staged file to the committed ones; does nothing more when it is there already.

        Raises:
            errors.NotFoundError: it was not uploaded.
            errors.OverloadedError: the disk is full.
            errors.UnavailableError: the disk can't be written.
        """
        staged, target = self._staging / _checked(digest), self._blobs / digest
        with _disk_errors(f"commit {digest}"):
            if target.is_file():
                staged.unlink(missing_ok=True)
                os.utime(target)
                return target
            try:
                # Its age counts from here: it may have been staged long ago.
                os.utime(staged)
                os.replace(staged, target)
            except FileNotFoundError as error:
                raise errors.NotFoundError(
                    f"nothing was uploaded with digest {digest}; upload it over Flight, then commit"
                ) from error
            _sync_folder(self._blobs)
        return target

    def secure(self, digest: str) -> None:
        """Makes sure of a file that is on record now; here nobody else could have removed it."""

    def discard(self, digest: str) -> None:
        """Drops a staged file; committed ones stay."""
        with _disk_errors(f"discard {digest}"):
            (self._staging / _checked(digest)).unlink(missing_ok=True)

    def files(self) -> Iterator[StoredFile]:
        """Every committed file."""
        with _disk_errors("list the committed files"), os.scandir(self._blobs) as entries:
            for entry in entries:
                if manifests.is_digest(entry.name):
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat()
                        yield StoredFile(entry.name, status.st_size, status.st_mtime)

    def chunks(self, digest: str) -> Iterator[bytes]:
        """A committed file's bytes, piece by piece and unchecked.

        Raises:
            errors.NotFoundError: it is not there.
            errors.UnavailableError: the disk can't be read.
        """
        with _disk_errors(f"read {digest}"), contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context((self._blobs / _checked(digest)).open("rb"))
            except FileNotFoundError as error:
                raise errors.NotFoundError(f"there is no file {digest}") from error
            while piece := file.read(_READ_BYTES):
                yield piece

    def remove(self, digest: str) -> None:
        """Removes a committed file."""
        with _disk_errors(f"remove {digest}"):
            (self._blobs / _checked(digest)).unlink(missing_ok=True)

    def clean(self, now_s: float) -> int:
        """Removes what a crash left half written and what nobody committed for a day.

        Args:
            now_s: Unix time.

        Returns:
            How many files went.
        """
        removed = 0
        with _disk_errors("clean the staging folder"):
            for path in self._staging.iterdir():
                if path.suffix == PART_SUFFIX:
                    stale = not _is_being_written(path)
                else:
                    stale = _age_s(path, now_s) > STAGED_FOR_S
                if stale:
                    path.unlink(missing_ok=True)
                    removed += 1
        return removed

    @contextlib.contextmanager
    def _part(self, digest: str) -> Iterator[IO[bytes]]:
        """A file under construction: locked while it is written, gone at the end unless renamed."""
        with _disk_errors(f"store {digest}"):
            file = tempfile.NamedTemporaryFile(  # noqa: SIM115
                dir=self._staging, prefix=f"{digest[:12]}-", suffix=PART_SUFFIX, delete=False
            )
        try:
            # The lock dies with its process: whoever cleans tells leftovers from live uploads.
            with _disk_errors(f"store {digest}"):
                fcntl.flock(file.fileno(), fcntl.LOCK_EX)
            yield file
        finally:
            pathlib.Path(file.name).unlink(missing_ok=True)
            # What is still buffered after a failed write fails again, and is of no use to anyone.
            with contextlib.suppress(OSError):
                file.close()


def _copy(
    chunks: Iterable[bytes | memoryview], file: IO[bytes], digest: str, size_bytes: int
) -> None:
    hasher, received = hashlib.sha256(), 0
    for chunk in chunks:
        received += len(chunk)
        if received > size_bytes:
            raise errors.IntegrityError(
                f"upload {digest}: longer than the {size_bytes} bytes announced"
            )
        hasher.update(chunk)
        # Only the disk's own errors are the disk's: the sender's come out of the iterator.
        with _disk_errors(f"store {digest}"):
            file.write(chunk)
    if received != size_bytes:
        raise errors.IntegrityError(
            f"upload {digest}: ended after {received} of {size_bytes} bytes; send it again"
        )
    if hasher.hexdigest() != digest:
        raise errors.IntegrityError(
            f"upload {digest}: what arrived has SHA-256 {hasher.hexdigest()}; send it again"
        )


def _checked(digest: str) -> str:
    # The digest becomes a file name: anything else could lead out of the folder.
    if not manifests.is_digest(digest):
        raise errors.InvalidInputError(
            f"digest {digest[:80]!r} is not a SHA-256 in lower-case hex (64 characters)"
        )
    return digest


def _is_being_written(part: pathlib.Path) -> bool:
    try:
        with part.open("rb") as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _age_s(path: pathlib.Path, now_s: float) -> float:
    try:
        return now_s - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _sync_folder(folder: pathlib.Path) -> None:
    # A rename survives a power cut only once its folder was written.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _disk_errors(action: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise errors.OverloadedError(
                f"can't {action}: the card store's disk is full ({error.strerror}); make space "
                "and try again"
            ) from error
        raise errors.UnavailableError(f"can't {action}: {error}; try again") from error
