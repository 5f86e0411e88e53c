"""Whose keys a peer may revoke: two real stores, one of which follows the other."""

from __future__ import annotations

import asyncio
import pathlib
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from shared import errors
from shared.cards import format as formats
from shared.cards import signature
from shared.pb import cards_pb2, maintenance_pb2, maintenance_pb2_grpc, types_pb2
from shared.rpc import client
from tests import fakes
from tests.contract.card_store_processes import Store

OURS, THEIRS, UNUSED = (fakes.signer(seed) for seed in range(3))


def opened(root: pathlib.Path, **federation: Any) -> Store:
    fakes.keyring(root, THEIRS, UNUSED)
    return Store(
        root, security={"require_signatures": True}, federation={"enabled": True, **federation}
    )


@pytest.fixture
def stores(tmp_path: pathlib.Path) -> Iterator[tuple[Store, Store]]:
    """Ours, and a peer that it follows."""
    peer = opened(tmp_path / "peer")
    ours = opened(tmp_path / "ours", peers=[peer.control_address])
    yield ours, peer
    ours.stop()
    peer.stop()


async def publish(store: Store, name: str, by: signature.Signer) -> str:
    card = fakes.tiny_card(name)
    digest = await asyncio.to_thread(store.put, formats.LoRAFormat.to_bytes(card))
    request = cards_pb2.CommitRequest(
        ticket=types_pb2.Ticket(kind="card", digest=digest),
        signature_json=fakes.envelope(card, digest, by),
    )
    await call(store, "Commit", request)
    return digest


async def call(store: Store, method: str, request: Any) -> Any:
    async with store.stub() as stub:
        return await client.call(getattr(stub, method), request)


async def test_peer_revokes_its_own_keys_and_no_others_when_it_says_so(
    stores: tuple[Store, Store],
) -> None:
    ours, peer = stores
    async with asyncio.timeout(60):
        mine, theirs = await publish(ours, "mine", OURS), await publish(peer, "theirs", THEIRS)
        while theirs not in await ours.listed():
            await asyncio.sleep(0.02)
        # By mistake or by malice: one that we sign with, one that signed nothing here yet.
        for key in (OURS, UNUSED, THEIRS):
            await call(peer, "Revoke", cards_pb2.RevokeRequest(key_id=key.key_id))
        while theirs in await ours.listed():
            await asyncio.sleep(0.02)
    listed = await call(ours, "ListCards", cards_pb2.ListCardsRequest())
    assert list(listed.revoked_keys) == [THEIRS.key_id]
    assert [card.digest for card in listed.cards] == [mine]
    await publish(ours, "more", OURS)
    await publish(ours, "unused", UNUSED)
    with pytest.raises(errors.UntrustedError, match="revoked"):
        await publish(ours, "stolen", THEIRS)


async def test_revoked_key_is_learned_when_the_peers_log_was_compacted_meanwhile(
    stores: tuple[Store, Store],
) -> None:
    ours, peer = stores
    async with asyncio.timeout(60):
        theirs = await publish(peer, "theirs", THEIRS)
        while theirs not in await ours.listed():
            await asyncio.sleep(0.02)
        await asyncio.to_thread(ours.control.end, signal.SIGKILL)
        await call(peer, "Revoke", cards_pb2.RevokeRequest(key_id=THEIRS.key_id))
        async with client.channel(peer.control_address) as channel:
            stub = maintenance_pb2_grpc.StoreMaintenanceStub(channel)
            await client.call(stub.CompactLog, maintenance_pb2.CompactLogRequest(keep_lines=0))
        await asyncio.to_thread(ours.restart_control)
        while theirs in await ours.listed():
            await asyncio.sleep(0.02)
    with pytest.raises(errors.UntrustedError, match="revoked"):
        await publish(ours, "stolen", THEIRS)
