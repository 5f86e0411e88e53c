"""Uploads that are broken on purpose, sent to real processes: refused, dropped, at little cost."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import hashlib
import random
import re
from collections.abc import Callable, Iterator

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.flight
import pytest

from shared import errors
from shared.cards import format as formats
from shared.flight import client as flight_client
from shared.flight import datasets
from shared.pb import cards_pb2
from shared.rpc import client as rpc_client
from tests.contract import raw_flight
from tests.contract.card_store_processes import Store, announce, card_bytes, raw_batch, send

MIB = 1024 * 1024
UPLOAD = bytes(range(256)) * 40
LIMIT_BYTES = 1024 * MIB
"""About what `processes.limit_memory` allows a data plane that takes small uploads."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = Store(tmp_path_factory.mktemp("bad"))
    yield opened
    opened.stop()


@pytest.fixture
def unharmed(store: Store) -> Iterator[None]:
    """Whatever a test sends, nothing of it is left, and both processes serve as before."""
    before = store.staged()
    pids = store.data.pid, store.control.pid
    yield
    assert store.staged() == before
    good = card_bytes("good")
    digest = store.put(good)
    asyncio.run(store.commit(digest))
    assert store.get(digest) == good
    assert (store.data.pid, store.control.pid) == pids


pytestmark = pytest.mark.usefixtures("unharmed")


def connect(store: Store) -> pyarrow.flight.FlightClient:
    return pyarrow.flight.connect(f"grpc://{store.flight_address}")


def test_upload_is_cut_off_when_it_never_ends(store: Store) -> None:
    piece = bytes(flight_client.CHUNK_BYTES)
    options = pyarrow.flight.FlightCallOptions(timeout=60)
    before = store.data.memory_bytes("VmHWM")
    with connect(store) as client:
        descriptor = announce(piece, batches=10**9)
        writer, _ = client.do_put(descriptor, flight_client.RAW_SCHEMA, options)
        with pytest.raises(pa.ArrowInvalid, match="longer than the 1048576 bytes"), writer:
            for _ in range(2000):
                writer.write_batch(raw_batch(piece))
            pytest.fail("2 GB were taken")
    assert store.data.memory_bytes("VmHWM") - before < 100 * MIB


@pytest.mark.parametrize("unpacked", [512 * MIB, 1536 * MIB], ids=["fits", "does-not-fit"])
def test_memory_is_bounded_when_an_upload_unpacks_to_a_gigabyte(
    store: Store, unpacked: int
) -> None:
    """The smaller one is refused once it is unpacked, the larger one can't be unpacked."""
    zeros = pa.py_buffer(np.zeros(unpacked, np.uint8))  # Takes no memory while it is only read.
    offsets = pa.array([0, unpacked], pa.int64()).buffers()[1]
    column = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, zeros])
    batch = pa.record_batch([column], schema=flight_client.RAW_SCHEMA)
    for _ in range(2):  # The first one must leave the memory free that it took.
        with connect(store) as client, pytest.raises(pa.ArrowInvalid) as refused:
            send(client, announce(UPLOAD), batch, compression="zstd")
        assert re.search("are refused|malloc of size", str(refused.value))
    assert store.data.memory_bytes("VmHWM") < LIMIT_BYTES


def upload(data: bytes = UPLOAD) -> list[raw_flight.Message]:
    """A good upload of one chunk."""
    return [
        raw_flight.message(flight_client.RAW_SCHEMA, announce(data).command),
        raw_flight.chunk(data),
    ]


@pytest.mark.parametrize(
    "offsets",
    [(0, 10**12), (-64, 64), (0, -1), (64, 0), (10**12, 10**12 + 8), (-(2**63), 2**63 - 1)],
)
def test_chunk_is_refused_when_its_offsets_lead_outside(
    store: Store, offsets: tuple[int, int]
) -> None:
    messages = [upload()[0], raw_flight.chunk(UPLOAD, offsets)]
    assert raw_flight.put(store.flight_address, messages) == grpc.StatusCode.INVALID_ARGUMENT


def test_upload_is_refused_or_right_when_any_byte_of_its_messages_is_wrong(store: Store) -> None:
    rng, ends = random.Random(5), set()
    for _ in range(300):
        messages = upload()
        at = rng.randrange(2)
        part = rng.choice(["header", "header", "body"]) if at else "header"
        damaged = bytearray(getattr(messages[at], part))
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.choice([0, 1, 127, 128, 255])
        if rng.random() < 0.2:
            del damaged[rng.randrange(len(damaged)) :]
        messages[at] = dataclasses.replace(messages[at], **{part: bytes(damaged)})
        ends.add(raw_flight.put(store.flight_address, messages))
        for name in store.staged():
            assert name == hashlib.sha256(UPLOAD).hexdigest()
            (store.root / "card_store" / "staging" / name).unlink()
    # Arrow's own reader refuses some of them before this project's code sees them.
    assert ends <= {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
    assert {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT} <= ends


def bad_card_offsets() -> bytes:
    data = card_bytes("bad-offsets")
    batch = pa.ipc.open_file(source := pa.py_buffer(data)).get_batch(0)
    at = batch.column("lora_A").buffers()[1].address - source.address
    return data[:at] + np.array([0, 10**12, 2 * 10**12], np.int64).tobytes() + data[at + 24 :]


def packed(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def card_bomb() -> bytes:
    table = pa.ipc.open_file(card_bytes("bomb")).read_all().slice(0, 1)
    weights = pa.array([bytes(300 * MIB)], pa.large_binary())
    at = table.schema.get_field_index("lora_A")
    return packed(table.set_column(at, formats.SCHEMA.field("lora_A"), weights))


def dataset_bomb() -> bytes:
    pair = datasets.QAPair("q?", "a", (), "notes.md", "documents", 1.0)
    table = pa.ipc.open_file(datasets.to_bytes([pair])).read_all()
    long = pa.array(["a" * (300 * MIB)])
    return packed(table.set_column(1, datasets.SCHEMA.field("answer"), long))


@pytest.mark.parametrize(
    ("kind", "make", "reason"),
    [
        pytest.param("card", bad_card_offsets, "not a readable Arrow file", id="offsets"),
        pytest.param("card", card_bomb, "compressed cards are refused", id="packed-card"),
        pytest.param("dataset", dataset_bomb, "compressed datasets are refused", id="packed-set"),
        pytest.param("card", lambda: card_bytes("cut")[:-50], "not a readable", id="cut-card"),
        pytest.param("dataset", lambda: b"PK\x03\x04" * 100, "not a readable", id="zip"),
    ],
)
async def test_file_is_refused_and_dropped_when_its_content_is_bad(
    store: Store, kind: flight_client.Kind, make: Callable[[], bytes], reason: str
) -> None:
    before = store.control.memory_bytes("VmHWM")
    digest = await asyncio.to_thread(store.put, make(), kind)
    with pytest.raises(errors.InvalidInputError, match=reason):
        await store.commit(digest, kind)
    assert store.control.memory_bytes("VmHWM") - before < 50 * MIB
    if kind == "dataset":  # A card may be called one by mistake: it stays for a day.
        (store.root / "card_store" / "staging" / digest).unlink()
    with pytest.raises(errors.NotFoundError, match="nothing was uploaded"):
        await store.commit(digest, kind)


async def test_each_upload_is_taken_when_two_of_one_digest_come_at_once(store: Store) -> None:
    data = card_bytes("at-once", features=100_000)
    digest = hashlib.sha256(data).hexdigest()
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        puts = [threads.submit(store.put, data) for _ in range(4)]
        assert {put.result() for put in puts} == {digest}
    assert store.staged() == [digest]
    commits = await asyncio.gather(*(store.commit(digest) for _ in range(4)))
    assert sorted(commit.created for commit in commits) == [False, False, False, True]
    assert len({commit.revision for commit in commits}) == 1
    assert store.get(digest) == data


async def test_one_wins_when_two_cards_of_one_name_and_version_come_at_once(store: Store) -> None:
    digests = [store.put(card_bytes("contended", seed=seed)) for seed in range(4)]
    ends = await asyncio.gather(*map(store.commit, digests), return_exceptions=True)
    won = [end for end in ends if isinstance(end, cards_pb2.CommitResponse)]
    assert len(won) == 1 and won[0].created
    assert sum(isinstance(end, errors.AlreadyExistsError) for end in ends) == 3
    listed = set(await store.listed())
    assert listed & set(digests) == {won[0].record.digest}


@pytest.mark.parametrize("retired", ["deleted", "revoked"])
async def test_replayed_upload_is_refused_when_its_card_was_withdrawn(
    store: Store, retired: str
) -> None:
    data = card_bytes(f"replayed-{retired}")
    assert await store.publish(data)
    assert not await store.publish(data)
    digest = hashlib.sha256(data).hexdigest()
    async with store.stub() as stub:
        if retired == "deleted":
            await rpc_client.call(stub.DeleteCard, cards_pb2.DeleteCardRequest(digest=digest))
        else:
            await rpc_client.call(stub.Revoke, cards_pb2.RevokeRequest(digest=digest))
    for _ in range(2):
        with pytest.raises(errors.PreconditionError, match=f"was {retired}; it can't come back"):
            await store.publish(data)
    assert digest not in await store.listed()
    with pytest.raises(errors.NotFoundError):
        store.get(digest)
    # Nor does other content under its version.
    with pytest.raises(errors.AlreadyExistsError):
        await store.publish(card_bytes(f"replayed-{retired}", seed=1))
    assert await store.publish(card_bytes(f"replayed-{retired}", version="1.0.1", seed=1))
