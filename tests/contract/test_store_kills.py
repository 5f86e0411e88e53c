"""`kill -9` of the card store's processes at every stage of a put: all of a file or nothing.

Each process is the real one, stopped at an exact point (see `killed_at`); then another one starts
over the same folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import pathlib
import signal
from collections.abc import Iterator

import pytest

from shared import errors
from shared import settings as config
from shared.flight import client as flight_client
from shared.flight import datasets
from shared.flight import store as flight_store
from shared.pb import cards_pb2
from tests.contract import killed_at
from tests.contract.card_store_processes import (
    LARGEST,
    Process,
    Store,
    card_bytes,
    write_config,
)

KEPT = card_bytes("kept")


class DyingStore(Store):
    """Its processes die where they are told to."""

    def __init__(self, root: pathlib.Path) -> None:
        self._armed = root / "armed"
        super().__init__(root, (killed_at.MODULE, str(self._armed)))

    def write_config(self, root: pathlib.Path) -> pathlib.Path:
        return write_config(root, largest_upload_bytes=4 * LARGEST)

    def arm(self, stage: str) -> None:
        self._armed.write_text(stage)

    def disarm(self) -> None:
        self._armed.unlink()

    @contextlib.contextmanager
    def dying_at(self, stage: str, process: Process) -> Iterator[None]:
        """Within, a client asks for what the process dies of."""
        self.arm(stage)
        with pytest.raises(errors.UnavailableError):
            yield
        assert process.wait() == -signal.SIGKILL
        self.disarm()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DyingStore]:
    """One folder for all kills: what one of them breaks, the next would meet."""
    opened = DyingStore(tmp_path_factory.mktemp("killed"))
    asyncio.run(opened.publish(KEPT))
    yield opened
    opened.stop()


async def published(store: Store) -> list[str]:
    """The digests in the log, oldest first; each stands there as often as it was published."""
    found = []
    async with store.stub() as stub:
        watch = stub.Watch(cards_pb2.WatchRequest(), timeout=60)
        while (change := await watch.read()).kind != cards_pb2.HEARTBEAT:
            found.append(change.card.digest)
        watch.cancel()
    return found


def assert_nothing_is_served(store: Store, digest: str) -> None:
    with pytest.raises(errors.NotFoundError, match=digest):
        store.get(digest)


async def assert_all_is_well(store: Store, data: bytes) -> None:
    """The card is there once, so is what was there before, and nothing lies about."""
    digest = hashlib.sha256(data).hexdigest()
    kept = hashlib.sha256(KEPT).hexdigest()
    assert (await store.listed()).count(digest) == 1
    log = await published(store)
    assert (log.count(digest), log.count(kept), len(log)) == (1, 1, len(set(log)))
    assert store.get(digest) == data
    assert store.get(kept) == KEPT
    assert store.staged() == []


@pytest.mark.parametrize("stage", ["second-chunk", "part-complete", "before-staging", "in-staging"])
async def test_upload_is_whole_or_not_there_when_the_data_plane_is_killed(
    store: DyingStore, stage: str
) -> None:
    data = card_bytes(f"killed-{stage}", features=150_000)
    assert len(data) > 2 * flight_client.CHUNK_BYTES
    digest = hashlib.sha256(data).hexdigest()
    with store.dying_at(stage, store.data):
        await asyncio.to_thread(store.put, data)
    store.restart_data()

    assert digest not in await store.listed()
    assert_nothing_is_served(store, digest)
    if stage == "in-staging":
        assert store.staged() == [digest]
        assert (await store.commit(digest)).created
    else:
        assert store.staged() == []
        with pytest.raises(errors.NotFoundError, match="nothing was uploaded"):
            await store.commit(digest)
    assert await store.publish(data) == (stage != "in-staging")
    await assert_all_is_well(store, data)


@pytest.mark.parametrize(
    "stage",
    ["before-blobs", "in-blobs", "cards-inserted", "before-cards-committed", "cards-committed"],
)
async def test_card_is_committed_or_not_there_when_the_control_plane_is_killed(
    store: DyingStore, stage: str
) -> None:
    data = card_bytes(f"killed-{stage}")
    digest = store.put(data)
    with store.dying_at(stage, store.control):
        await store.commit(digest)

    def look() -> None:
        if stage == "cards-committed":
            assert store.get(digest) == data
        else:
            assert_nothing_is_served(store, digest)

    look()  # The data plane is there all the time.
    store.restart_control()
    look()
    assert (digest in await store.listed()) == (stage == "cards-committed")
    # The file outlived the process, wherever it was on its way: it need not be sent again.
    assert (await store.commit(digest)).created == (stage != "cards-committed")
    assert await store.publish(data) is False
    await assert_all_is_well(store, data)


@pytest.mark.parametrize("stage", ["before-datasets-committed", "datasets-committed"])
async def test_dataset_is_committed_or_not_there_when_the_control_plane_is_killed(
    store: DyingStore, stage: str
) -> None:
    data = datasets.to_bytes([datasets.QAPair(stage, "a", (), "notes.md", "documents", 1.0)])
    digest = store.put(data, "dataset")
    with store.dying_at(stage, store.control):
        await store.commit(digest, "dataset")
    is_committed = stage == "datasets-committed"
    if not is_committed:
        assert_nothing_is_served(store, digest)
    store.restart_control()
    assert (await store.commit(digest, "dataset")).created == (not is_committed)
    assert await store.publish(data, "dataset") is False
    assert store.get(digest) == data
    assert store.staged() == []


async def test_download_fails_typed_then_succeeds_when_the_data_plane_is_killed_in_it(
    store: DyingStore, tmp_path: pathlib.Path
) -> None:
    data = card_bytes("downloaded", features=900_000)
    assert len(data) > 3 * LARGEST, "it travels in more than three messages"
    await store.publish(data)
    digest = hashlib.sha256(data).hexdigest()
    path = tmp_path / "card.lora.arrow"
    client = flight_client.LoRAFlightClient(store.flight_address)
    with store.dying_at("third-message", store.data):
        await asyncio.to_thread(client.fetch_skill, digest, path)
    client.close()
    assert list(tmp_path.iterdir()) == []

    # Whoever has patience need not care: this download begins on a data plane that dies of it.
    store.restart_data()
    store.arm("third-message")
    stores = config.Discovery(zeroconf=False, stores=(store.control_address,))
    connection = flight_store.StoreConnection(config.Settings(discovery=stores), retry_s=60.0)
    download = asyncio.create_task(connection.get(digest))
    assert await asyncio.to_thread(store.data.wait) == -signal.SIGKILL
    store.disarm()
    await asyncio.to_thread(store.restart_data)
    assert await download == data
