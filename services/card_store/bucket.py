"""`BucketBlobs`: committed files in an object store, by `pyarrow.fs`: S3, Google Cloud, a mount.

The local folder is a cache of bounded size: what is not in it comes from the bucket when it is
asked for, checked against its digest. Objects never change; one of another size than its file,
left by a broken upload, is written again. What was uploaded lies in the bucket as well, under
`staging/`: replicas stand behind one name, and another one than took it may be told to commit it.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import threading
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.fs

from services.card_store import blobs
from shared import errors
from shared.cards import manifest as manifests

_CHUNK_BYTES = 4 * 1024 * 1024
_STAGING = "staging/"


class Bucket:
    """A folder of an object store, where one card store or several replicas of it keep files."""

    def __init__(self, url: str) -> None:
        """Takes a URL such as `s3://bucket/cards?region=eu-central-1` or `file:///mnt/cards`.

        Keys come from where the cloud's own tools find them (`AWS_ACCESS_KEY_ID` and so on).

        Raises:
            errors.ConfigError: the URL is malformed or its kind of store unknown.
        """
        try:
            self._files, self._root = pyarrow.fs.FileSystem.from_uri(url)
            if isinstance(self._files, pyarrow.fs.LocalFileSystem):
                pathlib.Path(self._root, _STAGING).mkdir(parents=True, exist_ok=True)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise errors.ConfigError(f"card_store.blobs_url {url!r}: {error}") from error
        self._url = url.partition("?")[0].rpartition("@")[2]

    def put(self, digest: str, path: pathlib.Path) -> None:
        """Copies a file into the store; one that is there is written again, which makes it young.

        Raises:
            errors.UnavailableError: the store can't be reached or refuses.
        """
        size_bytes = path.stat().st_size
        with (
            self._typed(f"write {digest}"),
            path.open("rb") as source,
            self._files.open_output_stream(self._at(digest)) as target,
        ):
            shutil.copyfileobj(source, target, _CHUNK_BYTES)
        # Closing ends an upload well even where it was broken off.
        if (found := self.size_bytes(digest)) != size_bytes:
            raise errors.UnavailableError(
                f"{self._url} has {found} of {size_bytes} bytes of {digest}; try again"
            )

    def chunks(self, digest: str) -> Iterator[bytes]:
        """A file's bytes, piece by piece and unchecked.

        Raises:
            errors.UnavailableError: the store can't be reached or refuses.
        """
        with self._typed(f"read {digest}"), self._files.open_input_stream(self._at(digest)) as file:
            while piece := file.read(_CHUNK_BYTES):
                yield piece

    def size_bytes(self, digest: str) -> int | None:
        """A file's size; None where it is not there."""
        with self._typed(f"look for {digest}"):
            found = self._files.get_file_info(self._at(digest))
        return int(found.size) if found.is_file else None

    def files(self, folder: str = "") -> Iterator[blobs.StoredFile]:
        """Every file of a folder."""
        with self._typed("list its files"):
            everything = pyarrow.fs.FileSelector(f"{self._root}/{folder}", allow_not_found=True)
            for info in self._files.get_file_info(everything):
                if info.is_file and manifests.is_digest(info.base_name):
                    modified_s = (info.mtime_ns or 0) / 1e9
                    yield blobs.StoredFile(info.base_name, int(info.size), modified_s)

    def remove(self, digest: str) -> None:
        """Removes a file."""
        with self._typed(f"remove {digest}"), contextlib.suppress(FileNotFoundError):
            self._files.delete_file(self._at(digest))

    def _at(self, digest: str) -> str:
        return f"{self._root}/{digest}"

    @contextlib.contextmanager
    def _typed(self, action: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise errors.NotFoundError(f"can't {action} in {self._url}: {error}") from error
        except (OSError, pa.ArrowException) as error:
            raise errors.UnavailableError(
                f"can't {action} in {self._url} (card_store.blobs_url): {error}; try again"
            ) from error


class BucketBlobs(blobs.BlobStore):
    """Uploads in the local folder, committed files in a bucket with the folder as a cache."""

    def __init__(self, root: pathlib.Path, bucket: Bucket, cache_bytes: int) -> None:
        """Takes the local folder, the bucket, and how much of it the folder may hold.

        Raises:
            errors.ConfigError: the folder can't be made.
        """
        super().__init__(root)
        self._bucket, self._cache_bytes = bucket, cache_bytes
        self._fetching = threading.Lock()

    def stage(self, digest: str, size_bytes: int, chunks: Iterable[bytes | memoryview]) -> None:
        """Takes an upload, for all replicas; see `BlobStore.stage`.

        Raises:
            errors.SkillmeshError: as there, and UnavailableError where the bucket is away.
        """
        super().stage(digest, size_bytes, chunks)
        path = super().find(digest)
        if path is not None:
            self._bucket.put(_STAGING + digest, path)

    def find(self, digest: str) -> pathlib.Path | None:
        """Where a file lies here, committed or staged by whichever replica."""
        if (path := super().find(digest)) is None:
            with self._fetching:
                path = super().find(digest)
                if path is None and self._bring(digest, _STAGING + digest):
                    path = super().find(digest)
        # A replica may have been killed between the bucket and the catalogue.
        return path or self.committed(digest)

    def promote(self, digest: str) -> pathlib.Path:
        """Commits a staged file; see `BlobStore.promote`.

        Raises:
            errors.SkillmeshError: as there, and UnavailableError where the bucket is away.
        """
        path = super().promote(digest)
        self._bucket.put(digest, path)
        self._bucket.remove(_STAGING + digest)
        self._trim(keep=digest)
        return path

    def secure(self, digest: str) -> None:
        """Puts a file that is on record now into the bucket again where it has gone meanwhile."""
        path = super().committed(digest)
        if path is not None and self._bucket.size_bytes(digest) is None:
            self._bucket.put(digest, path)

    def discard(self, digest: str) -> None:
        """Drops a staged file, here and in the bucket; committed ones stay."""
        super().discard(digest)
        self._bucket.remove(_STAGING + digest)

    def clean(self, now_s: float) -> int:
        """Removes what a crash left and what nobody committed for a day; see `BlobStore.clean`."""
        removed = super().clean(now_s)
        for file in list(self._bucket.files(_STAGING)):
            if now_s - file.modified_s > blobs.STAGED_FOR_S:
                self._bucket.remove(_STAGING + file.digest)
                removed += 1
        return removed

    def committed(self, digest: str) -> pathlib.Path | None:
        """Where a committed file lies, fetched from the bucket where need be.

        Raises:
            errors.IntegrityError: the bucket has other bytes under that digest.
            errors.UnavailableError: the bucket is away.
        """
        if (path := super().committed(digest)) is None:
            with self._fetching:
                path = super().committed(digest) or self._fetch(digest)
        if path is not None:
            # The cache drops what was not used for longest.
            with contextlib.suppress(OSError):
                os.utime(path)
        return path

    def files(self) -> Iterator[blobs.StoredFile]:
        """Every file in the bucket."""
        return self._bucket.files()

    def chunks(self, digest: str) -> Iterator[bytes]:
        """A file's bytes as the bucket has them; see `BlobStore.chunks`."""
        return self._bucket.chunks(digest)

    def remove(self, digest: str) -> None:
        """Removes a file from bucket and cache."""
        super().remove(digest)
        self._bucket.remove(digest)

    def _fetch(self, digest: str) -> pathlib.Path | None:
        if not self._bring(digest, digest):
            return None
        path = super().promote(digest)
        self._trim(keep=digest)
        return path

    def _bring(self, digest: str, key: str) -> bool:
        """Stages an object here; whether the bucket has it."""
        size_bytes = self._bucket.size_bytes(key)
        if size_bytes is not None:
            super().stage(digest, size_bytes, self._bucket.chunks(key))
        return size_bytes is not None

    def _trim(self, keep: str) -> None:
        """Makes room in the cache; files that are open stay readable."""
        cached = sorted(super().files(), key=lambda file: file.modified_s)
        too_much = sum(file.size_bytes for file in cached) - self._cache_bytes
        for file in cached:
            if too_much <= 0:
                return
            if file.digest != keep:
                super().remove(file.digest)
                too_much -= file.size_bytes
