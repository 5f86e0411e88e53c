"""A full disk under the card store: typed errors, nothing lost, and all is well once it has space.

Twice: on a small file system that the test fills to the last byte (mounting it takes root), and
with a limit that makes every write of the processes fail as if they had filled a disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import pathlib
import resource
import subprocess
from collections.abc import Iterator

import pytest

from shared import errors
from shared.pb import cards_pb2
from shared.rpc import client as rpc_client
from tests.contract.card_store_processes import Store, card_bytes

DISK_BYTES = 16 * 1024 * 1024
PIECE_BYTES = 4096
KEPT = card_bytes("kept")
KEPT_DIGEST = hashlib.sha256(KEPT).hexdigest()


class FullDisk:
    """A store whose disk can be filled."""

    def __init__(self, root: pathlib.Path) -> None:
        self.store = Store(root)
        asyncio.run(self.store.publish(KEPT))

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Within, not a byte more can be written."""
        filler = self.store.root / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(PIECE_BYTES))
        try:
            yield
        finally:
            filler.unlink()


class LimitedDisk(FullDisk):
    """A store whose processes can be kept from making any file longer."""

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        pids = self.store.control.pid, self.store.data.pid
        limits = [resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in pids]
        for pid, (_, hard) in zip(pids, limits, strict=True):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
        try:
            yield
        finally:
            for pid, limit in zip(pids, limits, strict=True):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)


@pytest.fixture(scope="module", params=["mounted", "limited"])
def disk(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FullDisk]:
    folder = tmp_path_factory.mktemp("disk")
    if request.param == "limited":
        made: FullDisk = LimitedDisk(folder)
        yield made
        made.store.stop()
        return
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "skillmesh-test", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"can't mount a file system, which takes root: {mounted.stderr.strip()}")
    try:
        made = FullDisk(folder / "state")
        yield made
        made.store.stop()
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def test_upload_fails_typed_and_works_again_when_the_disk_was_full(disk: FullDisk) -> None:
    store, data = disk.store, card_bytes("late-upload", features=100_000)
    with disk.full():
        with pytest.raises(errors.OverloadedError, match="disk is full"):
            await asyncio.to_thread(store.put, data)
        assert store.staged() == []
        assert store.get(KEPT_DIGEST) == KEPT
        assert KEPT_DIGEST in await store.listed()
    assert await store.publish(data)
    assert store.get(hashlib.sha256(data).hexdigest()) == data


async def test_commit_fails_typed_and_works_again_when_the_disk_was_full(disk: FullDisk) -> None:
    store, data = disk.store, card_bytes("late-commit")
    digest = store.put(data)
    with disk.full():
        for _ in range(2):
            with pytest.raises(errors.UnavailableError, match=r"catalogue .* space on the disk"):
                await store.commit(digest)
        with pytest.raises(errors.NotFoundError):
            store.get(digest)
        assert store.get(KEPT_DIGEST) == KEPT
        assert digest not in await store.listed()
    response = await store.commit(digest)
    assert response.created and store.get(digest) == data
    async with store.stub() as stub:
        status = await rpc_client.call(stub.GetStoreStatus, cards_pb2.GetStoreStatusRequest())
    assert status.revision == response.revision


async def test_aliases_and_revocations_fail_typed_when_the_disk_is_full(disk: FullDisk) -> None:
    alias = cards_pb2.SetAliasRequest(
        idempotency_key="full", name="kept", alias="production", digest=KEPT_DIGEST
    )
    async with disk.store.stub() as stub:
        with disk.full():
            for method, request in (
                (stub.SetAlias, alias),
                (stub.Revoke, cards_pb2.RevokeRequest(digest=KEPT_DIGEST)),
                (stub.DeleteCard, cards_pb2.DeleteCardRequest(digest=KEPT_DIGEST)),
            ):
                with pytest.raises(errors.UnavailableError, match="space on the disk"):
                    await rpc_client.call(method, request)
            get = cards_pb2.GetCardRequest(reference="kept")
            before = await rpc_client.call(stub.GetCard, get)
        assert (before.state, list(before.aliases)) == (cards_pb2.ACTIVE, ["latest"])
        moved = await rpc_client.call(stub.SetAlias, alias)
    assert list(moved.aliases) == ["latest", "production"]
