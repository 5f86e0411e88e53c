"""Both processes of the card store, started for real over loopback."""

from __future__ import annotations

import asyncio
import hashlib
import pathlib
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import grpc
import pyarrow as pa
import pyarrow.flight
import pytest

from shared import errors
from shared.cards import format as formats
from shared.flight import client as flight_client
from shared.flight import datasets
from shared.pb import cards_pb2, cards_pb2_grpc
from shared.rpc import client as rpc_client
from tests import fakes
from tests.contract.card_store_processes import (
    CONTROL,
    DATA,
    LARGEST,
    Process,
    Store,
    announce,
    card_bytes,
    commit,
    raw_batch,
    send,
    write_config,
)


@pytest.fixture
def own_store(tmp_path: pathlib.Path) -> Iterator[Store]:
    opened = Store(tmp_path)
    yield opened
    opened.stop()


@pytest.fixture
async def stub(store: Store) -> AsyncIterator[cards_pb2_grpc.CardStoreAsyncStub]:
    async with rpc_client.channel(f"127.0.0.1:{store.control.port}") as channel:
        yield cards_pb2_grpc.CardStoreStub(channel)


@pytest.fixture
def flight(store: Store) -> Iterator[flight_client.LoRAFlightClient]:
    client = flight_client.LoRAFlightClient(store.flight_address)
    yield client
    client.close()


@pytest.fixture
def plain(store: Store) -> Iterator[pyarrow.flight.FlightClient]:
    with pyarrow.flight.connect(f"grpc://{store.flight_address}") as client:
        yield client


async def test_card_arrives_as_it_was_sent_when_it_is_committed(
    stub: cards_pb2_grpc.CardStoreAsyncStub,
    flight: flight_client.LoRAFlightClient,
    tmp_path: pathlib.Path,
) -> None:
    # Wide enough to travel in several chunks.
    data = card_bytes("round-trip", features=200_000)
    assert len(data) > 3 * flight_client.CHUNK_BYTES
    digest = await asyncio.to_thread(flight.put, "card", data)
    response = await commit(stub, digest)

    assert response.created and response.record.digest == digest
    assert response.record.base_fingerprint == fakes.FINGERPRINT
    assert await asyncio.to_thread(flight.get, digest) == data
    path = tmp_path / f"card{formats.SUFFIX}"
    await asyncio.to_thread(flight.fetch_skill, digest, path)
    assert formats.LoRAFormat.load(path, digest).name == "round-trip"
    listed = [item for item in flight.list_remote_skills() if item["digest"] == digest]
    assert listed == [
        {
            "name": "round-trip",
            "digest": digest,
            "version": "1.0.0",
            "domain": "testing",
            "size_bytes": len(data),
            "base_fingerprint": fakes.FINGERPRINT,
        }
    ]
    found = await rpc_client.call(
        stub.GetCard, cards_pb2.GetCardRequest(reference="round-trip@latest")
    )
    assert found == response.record


async def test_plain_flight_client_gets_the_table_when_it_follows_the_listing(
    stub: cards_pb2_grpc.CardStoreAsyncStub,
    flight: flight_client.LoRAFlightClient,
    plain: pyarrow.flight.FlightClient,
) -> None:
    data = card_bytes("plain-table")
    digest = flight.put("card", data)
    await commit(stub, digest)
    (info,) = plain.list_flights(b"plain-table")
    table = plain.do_get(info.endpoints[0].ticket).read_all()
    expected = pa.ipc.open_file(pa.BufferReader(data)).read_all()
    assert table.equals(expected, check_metadata=True)
    for descriptor in (info.descriptor, pyarrow.flight.FlightDescriptor.for_path("plain-table")):
        again = plain.get_flight_info(descriptor)
        assert again.endpoints[0].ticket == info.endpoints[0].ticket
        assert (again.total_bytes, again.schema) == (len(data), formats.SCHEMA)


async def test_dataset_arrives_when_it_is_committed(
    stub: cards_pb2_grpc.CardStoreAsyncStub, flight: flight_client.LoRAFlightClient
) -> None:
    pair = datasets.QAPair("q?", "a", (), "notes.md", "documents", 1.0)
    data = datasets.to_bytes([pair])
    digest = flight.put("dataset", data)
    response = await commit(stub, digest, "dataset")
    assert response.created and not response.HasField("record")
    assert datasets.from_bytes(flight.get(digest)) == [pair]


async def test_upload_is_invisible_when_it_is_not_committed(
    flight: flight_client.LoRAFlightClient, plain: pyarrow.flight.FlightClient
) -> None:
    digest = flight.put("card", card_bytes("uncommitted"))
    with pytest.raises(errors.NotFoundError, match=digest):
        flight.get(digest)
    with pytest.raises(KeyError):
        plain.get_flight_info(pyarrow.flight.FlightDescriptor.for_path("uncommitted"))
    assert list(plain.list_flights(b"uncommitted")) == []


UPLOAD = b"\x01\x02" * 1000


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        pytest.param({"batches": 2}, "1 batches arrived, 2 were announced", id="truncated-batches"),
        pytest.param({"size_bytes": 2001}, "ended after 2000 of 2001", id="truncated-bytes"),
        pytest.param({"size_bytes": 1999}, "longer than the 1999", id="too-long"),
        pytest.param({"digest": "0" * 64}, "what arrived has SHA-256", id="wrong-digest"),
        pytest.param({"size_bytes": LARGEST + 1}, "largest_upload_bytes", id="too-large"),
        pytest.param({"digest": "../../../catalogue.db"}, "digest", id="path"),
        pytest.param({"kind": "pickle"}, "kind", id="unknown-kind"),
    ],
)
def test_upload_is_refused_and_dropped_when_it_is_not_what_it_says(
    store: Store, plain: pyarrow.flight.FlightClient, changed: dict[str, object], reason: str
) -> None:
    before = store.staged()
    with pytest.raises(pa.ArrowInvalid, match=reason):
        send(plain, announce(UPLOAD, **changed), raw_batch(UPLOAD))
    assert store.staged() == before


def test_upload_is_refused_when_it_is_malformed(
    store: Store, plain: pyarrow.flight.FlightClient
) -> None:
    before = store.staged()
    null = pa.record_batch([pa.array([None], pa.large_binary())], schema=flight_client.RAW_SCHEMA)
    two = pa.record_batch(
        [pa.array([UPLOAD, UPLOAD], pa.large_binary())], schema=flight_client.RAW_SCHEMA
    )
    for batch, reason in (
        (null, "null"),
        (two, "one chunk in every batch"),
        (pa.record_batch({"chunk": [1]}), "large_binary"),
    ):
        with pytest.raises(pa.ArrowInvalid, match=reason):
            send(plain, announce(UPLOAD), batch)
    with pytest.raises(pa.ArrowInvalid, match="command"):
        send(plain, pyarrow.flight.FlightDescriptor.for_path("x"), raw_batch(UPLOAD))
    with pytest.raises(pa.ArrowInvalid, match="compressed"):
        send(plain, announce(UPLOAD), raw_batch(UPLOAD), compression="zstd")
    assert store.staged() == before


@pytest.mark.parametrize("ticket", [b"", b"{}", b'{"digest": "../catalogue.db", "raw": true}'])
def test_ticket_is_refused_when_it_is_malformed(
    plain: pyarrow.flight.FlightClient, ticket: bytes
) -> None:
    with pytest.raises(pa.ArrowInvalid, match="ticket"):
        plain.do_get(pyarrow.flight.Ticket(ticket)).read_all()


async def test_first_commit_is_returned_when_the_same_digest_comes_again(
    stub: cards_pb2_grpc.CardStoreAsyncStub, flight: flight_client.LoRAFlightClient, store: Store
) -> None:
    data = card_bytes("twice")
    digest = flight.put("card", data)
    first = await commit(stub, digest)
    assert flight.put("card", data) == digest
    second = await commit(stub, digest)
    assert (first.created, second.created) == (True, False)
    assert (second.revision, second.record) == (first.revision, first.record)
    assert digest not in store.staged()


async def test_version_is_refused_when_it_has_another_digest(
    stub: cards_pb2_grpc.CardStoreAsyncStub, flight: flight_client.LoRAFlightClient
) -> None:
    await commit(stub, flight.put("card", card_bytes("fixed", seed=1)))
    other = flight.put("card", card_bytes("fixed", seed=2))
    with pytest.raises(errors.AlreadyExistsError, match="higher version"):
        await commit(stub, other)
    with pytest.raises(errors.NotFoundError):
        flight.get(other)


async def test_watcher_misses_nothing_when_it_resumes(
    stub: cards_pb2_grpc.CardStoreAsyncStub, flight: flight_client.LoRAFlightClient
) -> None:
    start = await commit(stub, flight.put("card", card_bytes("watched", "1.0.0")))
    first = start.record.digest
    watch = stub.Watch(cards_pb2.WatchRequest(from_revision=start.revision), timeout=60)
    beat = await watch.read()
    assert (beat.kind, beat.revision) == (cards_pb2.HEARTBEAT, start.revision)
    second = await commit(stub, flight.put("card", card_bytes("watched", "1.1.0")))
    live = await next_change(watch)
    assert (live.kind, live.revision, live.card) == (
        cards_pb2.CARD_PUBLISHED, second.revision, second.record,
    )  # fmt: skip
    watch.cancel()

    await rpc_client.call(
        stub.SetAlias,
        cards_pb2.SetAliasRequest(
            idempotency_key="k1", name="watched", alias="latest", digest=first
        ),
    )
    resumed = stub.Watch(cards_pb2.WatchRequest(from_revision=second.revision), timeout=60)
    moved = await next_change(resumed)
    assert (moved.kind, moved.alias) == (cards_pb2.ALIAS_MOVED, "latest")
    assert (moved.card.digest, list(moved.card.aliases)) == (first, ["latest"])
    resumed.cancel()


async def next_change(watch: object) -> cards_pb2.Change:
    while (change := await watch.read()).kind == cards_pb2.HEARTBEAT:  # type: ignore[attr-defined]
        pass
    assert isinstance(change, cards_pb2.Change)
    return change


async def test_watcher_is_forgotten_when_it_leaves(
    stub: cards_pb2_grpc.CardStoreAsyncStub, store: Store
) -> None:
    watch = stub.Watch(cards_pb2.WatchRequest(), timeout=60)
    await watch.read()

    async def status() -> cards_pb2.StoreStatus:
        return await rpc_client.call(stub.GetStoreStatus, cards_pb2.GetStoreStatusRequest())

    async with asyncio.timeout(30):
        now = await status()
        assert now.watchers >= 1
        assert now.flight_address == store.flight_address
        watch.cancel()
        while (await status()).watchers:
            pass
    assert not [line for line in store.control.log if "call failed" in line]


async def test_commit_works_when_control_was_killed_after_the_upload(own_store: Store) -> None:
    client = flight_client.LoRAFlightClient(own_store.flight_address)
    kept, data = card_bytes("kept"), card_bytes("killed")
    async with rpc_client.channel(f"127.0.0.1:{own_store.control.port}") as channel:
        await commit(cards_pb2_grpc.CardStoreStub(channel), client.put("card", kept))
    digest = client.put("card", data)
    assert own_store.control.end(signal.SIGKILL) == -signal.SIGKILL
    # The data plane goes on with what is committed.
    assert client.get(hashlib.sha256(kept).hexdigest()) == kept

    own_store.restart_control()
    async with rpc_client.channel(f"127.0.0.1:{own_store.control.port}") as channel:
        response = await commit(cards_pb2_grpc.CardStoreStub(channel), digest)
    assert (response.created, response.revision) == (True, 2)
    assert client.get(digest) == data
    client.close()


def test_leftovers_are_cleaned_when_the_data_plane_was_killed_in_an_upload(
    own_store: Store,
) -> None:
    client = pyarrow.flight.connect(f"grpc://{own_store.flight_address}")
    data = b"a" * (2 * flight_client.CHUNK_BYTES)
    options = pyarrow.flight.FlightCallOptions(timeout=30)
    writer, _ = client.do_put(announce(data, batches=2), flight_client.RAW_SCHEMA, options)
    writer.write_batch(raw_batch(data[: flight_client.CHUNK_BYTES]))
    until_upload_began(client, own_store)
    own_store.data.end(signal.SIGKILL)
    with pytest.raises(pa.ArrowException):
        writer.close()
    client.close()
    assert own_store.staged()[0].endswith(".part")

    own_store.data = Process(DATA, own_store.config).until_listening()
    assert own_store.staged() == []


async def test_watch_ends_unavailable_when_control_is_told_to_stop(own_store: Store) -> None:
    async with rpc_client.channel(f"127.0.0.1:{own_store.control.port}") as channel:
        watch = cards_pb2_grpc.CardStoreStub(channel).Watch(cards_pb2.WatchRequest(), timeout=60)
        await watch.read()
        ending = asyncio.create_task(asyncio.to_thread(own_store.control.end))
        with pytest.raises(errors.UnavailableError, match="watch again"):
            async with rpc_client.typed_errors():
                while await watch.read() is not grpc.aio.EOF:
                    pass
        assert await ending == 0


def test_data_plane_stops_when_a_client_holds_a_silent_upload(own_store: Store) -> None:
    client = pyarrow.flight.connect(f"grpc://{own_store.flight_address}")
    options = pyarrow.flight.FlightCallOptions(timeout=60)
    writer, _ = client.do_put(announce(UPLOAD), flight_client.RAW_SCHEMA, options)
    until_upload_began(client, own_store)
    assert own_store.data.end() == 0
    with pytest.raises(pa.ArrowException):
        writer.close()
    client.close()


def until_upload_began(client: pyarrow.flight.FlightClient, store: Store) -> None:
    for _ in range(10_000):
        if store.staged():
            return
        # A round trip to the server that is to begin: time passes there, not only here.
        list(client.list_flights())
    pytest.fail("the upload never began")


@pytest.mark.parametrize(
    ("module", "key"), [(CONTROL, "address"), (DATA, "flight_address")], ids=["control", "data"]
)
def test_process_ends_with_the_address_named_when_its_port_is_taken(
    store: Store, tmp_path: pathlib.Path, module: str, key: str
) -> None:
    port = {CONTROL: store.control.port, DATA: store.data.port}[module]
    config = write_config(tmp_path, **{key: f"127.0.0.1:{port}"})
    process = Process(module, config)
    assert process.wait() == 2
    assert f"can't listen on 127.0.0.1:{port}" in "".join(process.log)


@pytest.mark.parametrize("module", [CONTROL, DATA])
def test_process_ends_with_a_clear_message_when_a_plain_socket_has_its_port(
    tmp_path: pathlib.Path, module: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        process = Process(module, write_config(tmp_path, address=address, flight_address=address))
        assert process.wait() == 2
    assert f"can't listen on {address}" in "".join(process.log)


def test_card_store_starts_without_torch_when_it_is_imported() -> None:
    code = (
        "import sys, services.card_store.server, services.card_store.data_plane\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
