from __future__ import annotations

import hashlib
import os
import pathlib
import resource
import signal
from collections.abc import Iterator

import pytest

from services.card_store import blobs
from shared import errors

DATA = b"weights" * 1000
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def store(tmp_path: pathlib.Path) -> blobs.BlobStore:
    return blobs.BlobStore(tmp_path)


def files(root: pathlib.Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_file_is_staged_then_committed_when_size_and_digest_match(
    store: blobs.BlobStore, tmp_path: pathlib.Path
) -> None:
    store.stage(DIGEST, len(DATA), [DATA[:10], memoryview(DATA)[10:]])
    assert files(tmp_path) == [f"staging/{DIGEST}"]
    assert store.committed(DIGEST) is None

    path = store.promote(DIGEST)
    assert files(tmp_path) == [f"blobs/{DIGEST}"]
    assert path.read_bytes() == DATA
    assert store.find(DIGEST) == store.committed(DIGEST) == path


@pytest.mark.parametrize(
    ("digest", "size", "chunks"),
    [
        pytest.param(DIGEST, len(DATA), [DATA[:-1]], id="truncated"),
        pytest.param(DIGEST, len(DATA), [DATA, b"x"], id="too-long"),
        pytest.param(DIGEST, len(DATA), [DATA[:-1], b"x"], id="altered"),
        pytest.param("0" * 64, len(DATA), [DATA], id="wrong-digest"),
    ],
)
def test_nothing_is_kept_when_content_differs_from_what_was_announced(
    store: blobs.BlobStore, tmp_path: pathlib.Path, digest: str, size: int, chunks: list[bytes]
) -> None:
    with pytest.raises(errors.IntegrityError, match=digest):
        store.stage(digest, size, chunks)
    assert files(tmp_path) == []


def test_nothing_is_kept_when_the_sender_fails_half_way(
    store: blobs.BlobStore, tmp_path: pathlib.Path
) -> None:
    def sender() -> Iterator[bytes]:
        yield DATA[:100]
        raise errors.IntegrityError("broke off")

    with pytest.raises(errors.IntegrityError, match="broke off"):
        store.stage(DIGEST, len(DATA), sender())
    assert files(tmp_path) == []


def test_upload_is_invisible_when_it_is_not_complete(store: blobs.BlobStore) -> None:
    seen: list[pathlib.Path | None] = []

    def sender() -> Iterator[bytes]:
        for piece in (DATA[:100], DATA[100:]):
            seen.append(store.find(DIGEST))
            yield piece
        seen.append(store.find(DIGEST))

    store.stage(DIGEST, len(DATA), sender())
    assert seen == [None, None, None]
    assert store.find(DIGEST) is not None


@pytest.mark.parametrize("digest", ["../" * 20 + "etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_digest_is_refused_when_it_is_no_sha256(store: blobs.BlobStore, digest: str) -> None:
    for call in (store.promote, store.discard, store.find, store.committed):
        with pytest.raises(errors.InvalidInputError, match="not a SHA-256"):
            call(digest)
    with pytest.raises(errors.InvalidInputError, match="not a SHA-256"):
        store.stage(digest, 1, [b"x"])


def test_second_upload_leaves_nothing_when_the_file_is_committed(
    store: blobs.BlobStore, tmp_path: pathlib.Path
) -> None:
    store.stage(DIGEST, len(DATA), [DATA])
    store.promote(DIGEST)
    store.stage(DIGEST, len(DATA), [DATA])
    assert files(tmp_path) == [f"blobs/{DIGEST}"]
    assert store.promote(DIGEST).read_bytes() == DATA


def test_promote_fails_typed_when_nothing_was_uploaded(store: blobs.BlobStore) -> None:
    with pytest.raises(errors.NotFoundError, match="upload it"):
        store.promote(DIGEST)


def test_error_is_typed_and_nothing_is_kept_when_the_disk_is_full(
    store: blobs.BlobStore, tmp_path: pathlib.Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    content = os.urandom(1 << 20)
    digest = hashlib.sha256(content).hexdigest()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, hard))
    try:
        with pytest.raises(errors.OverloadedError, match="disk is full"):
            store.stage(digest, len(content), [content])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert files(tmp_path) == []


def test_error_is_typed_when_the_folder_is_gone(
    store: blobs.BlobStore, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "staging").rmdir()
    with pytest.raises(errors.UnavailableError, match="can't store"):
        store.stage(DIGEST, len(DATA), [DATA])


def test_folder_that_cannot_be_made_names_the_key_when_the_store_starts(
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(errors.ConfigError, match=r"cluster\.state_dir"):
        blobs.BlobStore(tmp_path / "file")


def test_cleaning_takes_leftovers_only_when_nobody_writes_them(
    store: blobs.BlobStore, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "staging" / "0123-crashed.part").write_bytes(b"half")

    def sender() -> Iterator[bytes]:
        yield DATA[:100]
        # In the middle of this upload another process starts.
        assert blobs.BlobStore(tmp_path).clean(now_s=0.0) == 1
        yield DATA[100:]

    store.stage(DIGEST, len(DATA), sender())
    assert files(tmp_path) == [f"staging/{DIGEST}"]


def test_cleaning_drops_an_upload_when_nobody_committed_it_for_a_day(
    store: blobs.BlobStore, tmp_path: pathlib.Path
) -> None:
    store.stage(DIGEST, len(DATA), [DATA])
    written_s = (tmp_path / "staging" / DIGEST).stat().st_mtime
    assert store.clean(written_s + blobs.STAGED_FOR_S - 1) == 0
    assert store.clean(written_s + blobs.STAGED_FOR_S + 1) == 1
    assert files(tmp_path) == []
