"""Stores that mirror one another, each of two real processes, over loopback."""

from __future__ import annotations

import asyncio
import hashlib
import operator
import signal
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import pyarrow as pa
import pyarrow.flight
import pytest

from services.inference import engine as engines
from shared import errors
from shared import settings as config
from shared.cards import format as formats
from shared.pb import cards_pb2
from tests import fakes, tiny_model
from tests.contract import addresses, mesh_stores


async def test_cards_and_revocations_go_both_ways_without_loops_when_stores_mirror(tmp_path):
    one, two = addresses.free_address(), addresses.free_address()
    # Its own address on the list does no harm.
    a = mesh_stores.MeshStore(tmp_path / "a", one, [one, two])
    b = mesh_stores.MeshStore(tmp_path / "b", two, [one])
    first, second = await a.publish("first"), await b.publish("second", seed=1)
    mirrored, back = await b.until_known(first), await a.until_known(second)
    assert mirrored.origin and back.origin and mirrored.origin != back.origin
    assert await asyncio.to_thread(b.fetch, first) == await asyncio.to_thread(a.fetch, first)
    newer = await b.publish("first", "1.1.0", seed=2)
    assert list((await a.until_known(newer)).aliases) == ["latest"]
    # A revocation of its own card goes on; that of somebody else's stays where it was said.
    await a.call("Revoke", cards_pb2.RevokeRequest(digest=first))
    await b.until_known(first, cards_pb2.REVOKED)
    await a.call("Revoke", cards_pb2.RevokeRequest(digest=second))
    marker = await a.publish("marker", seed=3)
    await b.until_known(marker)
    assert (await b.get(second)).state == cards_pb2.ACTIVE
    assert await a.log_length() == 6 and await b.log_length() == 5
    # Killed and restarted it goes on where it was, and what was published meanwhile comes.
    b.control.end(signal.SIGKILL)
    missed = await a.publish("missed", seed=4)
    await asyncio.to_thread(b.restart_control)
    await b.until_known(missed)
    assert await b.log_length() == 6
    a.stop()
    b.control.end(), b.data.end()


async def test_bytes_come_on_first_use_when_the_policy_says_so(tmp_path):
    one, two = addresses.free_address(), addresses.free_address()
    a = mesh_stores.MeshStore(tmp_path / "a", one, [])
    b = mesh_stores.MeshStore(
        tmp_path / "b", two, [one], mirror={"fetch": "on_use", "domains": ["test*"]}
    )
    digest = await a.publish("lazy")
    assert (await b.until_known(digest)).remote
    with pytest.raises(errors.NotFoundError):
        await asyncio.to_thread(b.fetch, digest)
    brought = await b.call("BringCard", cards_pb2.BringCardRequest(digest=digest))
    assert not brought.remote
    assert await asyncio.to_thread(b.fetch, digest) == await asyncio.to_thread(a.fetch, digest)
    [peer] = (await b.call("ListPeers", cards_pb2.ListPeersRequest())).peers
    assert (peer.control, peer.connected, peer.cards) == (one, True, 1)
    a.stop()
    b.stop()


async def _endpoint(
    asked: pyarrow.flight.FlightClient, name: str, is_right: Callable[[list[Any]], bool]
) -> pyarrow.flight.FlightEndpoint:
    """The only endpoint of a card's FlightInfo, once its locations are right."""
    descriptor = pyarrow.flight.FlightDescriptor.for_path(name)

    async def found() -> pyarrow.flight.FlightEndpoint | None:
        [endpoint] = asked.get_flight_info(descriptor).endpoints
        return endpoint if is_right(endpoint.locations) else None

    return await mesh_stores.until(found)


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[mesh_stores.MeshStore]]:
    """Three stores of which each sees the one before it alone, and the first the last."""
    own = [addresses.free_address() for _ in range(3)]
    root = tmp_path_factory.mktemp("ring")

    def started(at: int) -> mesh_stores.MeshStore:
        return mesh_stores.MeshStore(root / str(at), own[at], [own[at - 1]])

    with futures.ThreadPoolExecutor(3) as threads:
        stores = list(threads.map(started, range(3)))
    yield stores
    for store in stores:
        store.stop()


async def test_card_is_everywhere_once_when_it_comes_round_a_ring(ring):
    published = [await store.publish(f"ring-{at}", seed=at) for at, store in enumerate(ring)]
    origins = set()
    for store in ring:
        records = [await store.until_known(digest) for digest in published]
        origins.add(tuple(record.origin for record in records))
        assert not any(record.remote for record in records)
    # A second round would be told of before this one is.
    marker = await ring[0].publish("ring-marker", seed=9)
    await ring[2].until_known(marker)
    for store in ring:
        told = await store.published()
        assert sorted(told) == sorted(set(told)) and set(published) <= set(told)
    assert len(origins) == 3


async def test_revocation_arrives_when_only_the_giver_sees_the_origin(ring):
    a, b, c = ring
    card = await a.publish("relayed", seed=20)
    others = await b.publish("of-the-middle", seed=21)
    await asyncio.gather(c.until_known(card), c.until_known(others), a.until_known(others))
    await a.call("Revoke", cards_pb2.RevokeRequest(digest=card))
    await asyncio.gather(*(store.until_known(card, cards_pb2.REVOKED) for store in ring))
    # What a store says of others' cards counts for those who have them from it, and for no one
    # else: b has this one from nobody.
    await a.call("Revoke", cards_pb2.RevokeRequest(digest=others))
    marker = await a.publish("revocation-marker", seed=22)
    await asyncio.gather(b.until_known(marker), c.until_known(marker))
    assert [(await store.get(others)).state for store in ring] == [
        cards_pb2.REVOKED,
        cards_pb2.ACTIVE,
        cards_pb2.ACTIVE,
    ]


async def test_copies_stay_when_a_card_is_deleted_at_its_origin(ring):
    a, b, c = ring
    card = await a.publish("deleted", seed=30)
    await c.until_known(card)
    await a.call("DeleteCard", cards_pb2.DeleteCardRequest(digest=card))
    marker = await a.publish("deletion-marker", seed=31)
    await c.until_known(marker)
    assert (await a.get(card)).state == cards_pb2.DELETED
    for store in (b, c):
        assert (await store.get(card)).state == cards_pb2.ACTIVE
        assert hashlib.sha256(await asyncio.to_thread(store.fetch, card)).hexdigest() == card


async def test_any_flight_client_gets_the_card_from_each_replica_when_peers_have_it(ring):
    a, _, c = ring
    card = await a.publish("replicated", seed=40)
    await c.until_known(card)
    here, there = (f"grpc://{store.flight_address}" for store in (a, c))
    asked = pyarrow.flight.FlightClient(here)
    # The first store reads of it in the last one's log.
    endpoint = await _endpoint(asked, "replicated", bool)
    assert [location.uri.decode() for location in endpoint.locations] == [here, there]
    listed = [
        info.endpoints[0].locations
        for info in asked.list_flights()
        if b'"replicated"' in info.descriptor.command
    ]
    assert listed == [endpoint.locations]
    tables = []
    for location in endpoint.locations:
        with pyarrow.flight.connect(location) as replica:
            tables.append(replica.do_get(endpoint.ticket).read_all())
    assert tables[0].equals(tables[1], check_metadata=True)
    original = pa.ipc.open_file(formats.LoRAFormat.to_bytes(fakes.tiny_card("replicated", seed=40)))
    assert tables[0].equals(original.read_all(), check_metadata=True)
    raw = pyarrow.flight.Ticket(f'{{"digest": "{card}", "raw": true}}')
    for location in endpoint.locations:
        with pyarrow.flight.connect(location) as replica:
            sent = b"".join(replica.do_get(raw).read_all().column("chunk").to_pylist())
        assert hashlib.sha256(sent).hexdigest() == card
    # A peer that withdrew it is named no longer.
    await c.call("DeleteCard", cards_pb2.DeleteCardRequest(digest=card))
    await _endpoint(asked, "replicated", operator.not_)
    asked.close()


async def test_policy_decides_and_zeroconf_finds_when_no_peer_is_listed(tmp_path):
    mesh, heard = f"test-{tmp_path.name}"[:40].replace("_", "-"), {"zeroconf": True}
    policy = {"domains": ["law", "test*"], "base_models": ["embedded"], "fetch": "on_use"}

    def started(name, **more):
        return mesh_stores.MeshStore(
            tmp_path / name, addresses.free_address(), [], heard, mesh=mesh, **more
        )

    with futures.ThreadPoolExecutor(3) as threads:
        a = threads.submit(started, "a")
        b = threads.submit(started, "b", mirror=policy)
        c = threads.submit(started, "c", mirror=policy | {"domains": ["law"]})
        a, b, c = a.result(), b.result(), c.result()
    card = await a.publish("lazy")
    assert (await b.until_known(card)).remote

    async def sees_both() -> bool:
        peers = (await c.call("ListPeers", cards_pb2.ListPeersRequest())).peers
        return {peer.control for peer in peers if peer.connected} == {a.address, b.address}

    await mesh_stores.until(sees_both)
    with pytest.raises(errors.NotFoundError):
        await c.get(card)
    # A plain Flight client is sent on to who has the bytes.
    asked = pyarrow.flight.FlightClient(f"grpc://{b.flight_address}")
    found = (await _endpoint(asked, "lazy", bool)).locations
    assert [location.uri.decode() for location in found] == [f"grpc://{a.flight_address}"]
    asked.close()
    # The record of a card that nobody has any more is of no use.
    await a.call("DeleteCard", cards_pb2.DeleteCardRequest(digest=card))
    await b.until_known(card, cards_pb2.DELETED)
    # One that says goodbye is given up.
    a.stop()
    for store in (b, c):

        async def is_given_up(store: mesh_stores.MeshStore = store) -> bool:
            return a.address not in await store.peers()

        await mesh_stores.until(is_given_up)
    with futures.ThreadPoolExecutor(2) as threads:
        list(threads.map(mesh_stores.MeshStore.stop, (b, c)))


async def test_engine_serves_a_stores_cards_when_it_is_federated_from_plain_python(ring, tmp_path):
    a, b, _ = ring
    base = tiny_model.tiny_base(0)
    card = tiny_model.card_for(base, "federated", seed=50)
    bare = tiny_model.reference_text(base, "Who built it?", 12)
    fakes.keyring(tmp_path)
    settings = config.Settings(
        cluster=config.Cluster(state_dir=tmp_path),
        discovery=config.Discovery(zeroconf=False, stores=(b.address,)),
    )
    engine = engines.ArrowEngine(base, settings.inference)
    engine.start()
    with pytest.raises(errors.PreconditionError, match="start_federation"):
        await engine.sync_remote_skills()
    await engine.start_federation(settings)
    with pytest.raises(errors.PreconditionError, match="already"):
        await engine.start_federation(settings)
    digest = await a.publish_card(card)
    await b.until_known(digest)
    key = f"federated@{digest}"
    came = await engine.sync_remote_skills()
    # Unless the follower was quicker.
    assert key in engine.served() and set(came) <= {key}
    assert await engine.sync_remote_skills() == []
    with_card = await engine.generate("Who built it?", key, max_new_tokens=12)
    without = await engine.generate("Who built it?", max_new_tokens=12)
    assert without.answer == bare != with_card.answer
    await engine.stop()
