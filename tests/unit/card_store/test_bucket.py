"""Committed files in an object store, over S3's protocol and on a mounted disk alike."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Callable, Iterator

import pytest

from services.card_store import bucket, maintenance, processes
from services.card_store.admin import backup
from shared import errors, store_settings
from shared import settings as config
from tests import s3_server
from tests.unit.card_store.house import House

Open = Callable[[str], bucket.BucketBlobs]


@pytest.fixture(params=["s3", "mount"])
def url(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[str]:
    if request.param == "mount":
        yield (tmp_path / "a mount" / "cards").as_uri()
        return
    with s3_server.running() as server:
        yield server.url("some/cards")


@pytest.fixture
def opened(url: str, tmp_path: pathlib.Path) -> Open:
    def make(name: str) -> bucket.BucketBlobs:
        return bucket.BucketBlobs(tmp_path / name, bucket.Bucket(url), cache_bytes=2500)

    return make


def commit(files: bucket.BucketBlobs, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    files.stage(digest, len(data), [data])
    files.promote(digest)
    return digest


def cached(folder: pathlib.Path) -> set[str]:
    return {path.name for path in (folder / "blobs").iterdir()}


def test_replica_has_a_file_when_another_one_committed_it(
    opened: Open, tmp_path: pathlib.Path
) -> None:
    one, two = opened("one"), opened("two")
    digest = commit(one, b"a" * 1000)
    path = two.committed(digest)
    assert path is not None and path.read_bytes() == b"a" * 1000
    assert path.is_relative_to(tmp_path / "two")
    assert [(file.digest, file.size_bytes) for file in two.files()] == [(digest, 1000)]
    assert b"".join(two.chunks(digest)) == b"a" * 1000
    assert two.committed("0" * 64) is None
    with pytest.raises(errors.NotFoundError):
        list(two.chunks("0" * 64))
    two.remove(digest)
    two.remove(digest)
    assert list(one.files()) == [] and cached(tmp_path / "two") == set()


def test_cache_stays_small_when_many_files_are_committed(
    opened: Open, tmp_path: pathlib.Path
) -> None:
    files = opened("one")
    digests = [commit(files, bytes([n]) * 1000) for n in range(5)]
    assert len(cached(tmp_path / "one")) == 2 and digests[4] in cached(tmp_path / "one")
    assert {file.digest for file in files.files()} == set(digests)
    for digest in digests:
        path = files.committed(digest)
        assert path is not None and len(cached(tmp_path / "one")) <= 2
    # One that is larger than the cache is served all the same.
    assert files.committed(commit(files, b"large" * 1000)) is not None


def test_object_is_written_again_when_an_upload_was_broken_off(
    opened: Open, url: str, tmp_path: pathlib.Path
) -> None:
    data = b"x" * 1000
    digest = hashlib.sha256(data).hexdigest()
    half = tmp_path / "half"
    half.write_bytes(data[:400])
    bucket.Bucket(url).put(digest, half)
    with pytest.raises(errors.IntegrityError):
        opened("two").committed(digest)
    assert cached(tmp_path / "two") == set()
    assert commit(opened("one"), data) == digest
    assert opened("two").committed(digest) is not None


async def test_store_works_and_is_backed_up_when_its_files_are_in_a_bucket(
    opened: Open, url: str, tmp_path: pathlib.Path
) -> None:
    settings = config.Settings.model_validate(
        {"cluster": {"state_dir": tmp_path / "state"}, "card_store": {"blobs_url": url}}
    )
    files = processes.blob_store(settings)
    assert isinstance(files, bucket.BucketBlobs)
    house = House(processes.folder(settings), files)
    first, second = house.stage_card("first"), house.stage_card("second")
    for digest in (first, second):
        assert (await house.store.commit("card", digest)).created
    await house.store.delete(second)
    keeping = maintenance.Maintenance(
        house.store, files, house.cards, store_settings.CardStore(), lambda: 2**42
    )
    assert (await keeping.collect_garbage()).digests == (second,)
    assert [file.digest for file in files.files()] == [first]
    assert [seen.fault async for seen in keeping.verify()] == [""]
    copied = backup.back_up(settings, tmp_path / "backup")
    assert (copied.files, copied.faults) == (1, ())
    house.close()


def test_url_is_refused_when_there_is_no_such_kind_of_store(tmp_path: pathlib.Path) -> None:
    for url in ("nonsense", "ftp://x/y", (tmp_path / "file" / "below").as_uri()):
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(errors.ConfigError, match="blobs_url"):
            bucket.Bucket(url)


def test_replica_commits_an_upload_when_another_one_took_it(opened: Open) -> None:
    one, two = opened("one"), opened("two")
    data = b"b" * 800
    digest = hashlib.sha256(data).hexdigest()
    one.stage(digest, len(data), [data])
    path = two.find(digest)
    assert path is not None and path.read_bytes() == data
    # Known by none of them as committed before it is.
    assert list(one.files()) == list(two.files()) == []
    two.promote(digest)
    assert one.committed(digest) is not None
    # Nothing is left of the upload, and a replica that was killed before it wrote the catalogue
    # leaves a file that the next one finds.
    assert opened("three").find(digest) is not None
    assert list(bucket_of(one).files("staging/")) == []


def test_upload_is_dropped_everywhere_when_nobody_committed_it_for_a_day(opened: Open) -> None:
    one, two = opened("one"), opened("two")
    data = b"c" * 800
    digest = hashlib.sha256(data).hexdigest()
    one.stage(digest, len(data), [data])
    now_s = next(bucket_of(one).files("staging/")).modified_s
    assert two.clean(now_s + 3600) == 0 and two.find(digest) is not None
    two.discard(digest)
    one.stage(digest, len(data), [data])
    assert opened("three").clean(now_s + 25 * 3600) == 1
    assert list(bucket_of(one).files("staging/")) == []


def test_file_is_put_again_when_it_went_between_bucket_and_catalogue(opened: Open) -> None:
    one = opened("one")
    digest = commit(one, b"d" * 300)
    bucket_of(one).remove(digest)
    one.secure(digest)
    assert b"".join(opened("two").chunks(digest)) == b"d" * 300


def bucket_of(files: bucket.BucketBlobs) -> bucket.Bucket:
    return files._bucket
