"""The gateway's calls to a real card store: versions, aliases, residency, trust."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator

import pytest

from services.gateway.calls import store as store_calls
from shared import errors
from shared.pb import cards_pb2
from shared.rpc import client
from tests.contract.card_store_processes import Store, card_bytes


@pytest.fixture
async def calls(store: Store) -> AsyncIterator[store_calls.StoreCalls]:
    async with client.channel(store.control_address) as channel:
        yield store_calls.StoreCalls(channel)


async def published(store: Store, name: str, version: str, seed: int) -> str:
    digest = await asyncio.to_thread(store.put, card_bytes(name, version, seed))
    await store.commit(digest)
    return digest


async def test_alias_moves_forth_and_back_when_promoted_and_rolled_back(
    store: Store, calls: store_calls.StoreCalls
) -> None:
    old = await published(store, "moved", "1.0.0", 0)
    new = await published(store, "moved", "1.1.0", 1)
    assert [card.digest for card in await calls.versions("moved")] == [new, old]
    assert (await calls.promote("moved", "latest", old)).digest == old
    assert (await calls.record("moved")).card.digest == old
    assert (await calls.roll_back("moved", "latest")).digest == new
    # The same key is the same move.
    for _ in range(2):
        await calls.promote("moved", "latest", old, idempotency_key="once")
    assert [move.digest for move in await calls.moves("moved", "latest")] == [
        old,
        new,
        old,
        new,
        old,
    ]
    record = await calls.record(new)
    assert (record.manifest.version, record.signature_json) == ("1.1.0", "")


async def test_card_is_out_of_service_when_revoked(
    store: Store, calls: store_calls.StoreCalls
) -> None:
    digest = await published(store, "leaked", "1.0.0", 0)
    assert await calls.revoke(digest, "leaked") == [digest]
    assert await calls.versions("leaked") == []
    assert (await calls.record(digest)).card.state == "REVOKED"
    with pytest.raises(errors.NotFoundError):
        await calls.record("leaked")
    with pytest.raises(errors.InvalidInputError, match="card reference"):
        await calls.versions("../leaked")


async def test_nodes_are_listed_when_they_reported(
    store: Store, calls: store_calls.StoreCalls, tmp_path: pathlib.Path
) -> None:
    digest = await published(store, "resident", "1.0.0", 0)
    async with store.stub() as stub:
        report = cards_pb2.ReportResidencyRequest(
            node_id="node-1", base_fingerprint="f" * 64, revision=7, digests=[digest]
        )
        await client.call(stub.ReportResidency, report)
    [node] = await calls.residency()
    assert (node.node_id, node.revision, node.digests) == ("node-1", 7, (digest,))
    assert await calls.residency("0" * 64) == []
    assert (await calls.status()).flight_address == store.flight_address


async def test_uploaded_card_is_published_once_when_committed_twice(
    store: Store, calls: store_calls.StoreCalls
) -> None:
    digest = await asyncio.to_thread(store.put, card_bytes("committed"))
    first, again = await calls.commit(digest, ""), await calls.commit(digest, "")
    assert first == again and first.reference == f"committed@{digest}"
