"""Stores that mirror one another, each of two real processes, over loopback with static peers."""

from __future__ import annotations

import asyncio
import json
import pathlib
import signal
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared import errors
from shared.cards import format as formats
from shared.flight import client as flight_client
from shared.pb import cards_pb2, cards_pb2_grpc, types_pb2
from shared.rpc import client
from tests import fakes
from tests.contract import card_store_processes as processes

_HANGING_S = 90.0


def _free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


class _Peer(processes.Store):
    """A store of a mesh."""

    def __init__(
        self, root: pathlib.Path, address: str, others: list[str], **federation: Any
    ) -> None:
        self.address, self._federation = address, {"peers": others, **federation}
        super().__init__(root)

    def write_config(self, root: pathlib.Path) -> pathlib.Path:
        path = processes.write_config(root, address=self.address)
        content = json.loads(path.read_text())
        content["federation"] = {"enabled": True, **self._federation}
        path.write_text(json.dumps(content))
        return path

    async def publish(self, name: str, version: str = "1.0.0", seed: int = 0) -> str:
        data = formats.LoRAFormat.to_bytes(fakes.tiny_card(name, version, seed))
        connection = flight_client.LoRAFlightClient(self.flight_address)
        digest = await asyncio.to_thread(connection.put, "card", data)
        connection.close()
        ticket = types_pb2.Ticket(kind="card", digest=digest)
        await self.call("Commit", cards_pb2.CommitRequest(idempotency_key=digest, ticket=ticket))
        return digest

    async def call(self, method: str, request: Any) -> Any:
        async with client.channel(self.address) as channel:
            stub = cards_pb2_grpc.CardStoreStub(channel)
            return await client.call(getattr(stub, method), request, 30.0)

    async def get(self, digest: str) -> cards_pb2.CardRecord:
        return await self.call("GetCard", cards_pb2.GetCardRequest(reference=digest))

    async def until_known(self, digest: str, state: Any = cards_pb2.ACTIVE) -> cards_pb2.CardRecord:
        while True:
            try:
                if (record := await self.get(digest)).state == state:
                    return record
            except (errors.NotFoundError, errors.UnavailableError):
                pass
            await asyncio.sleep(0.02)

    async def log_length(self) -> int:
        status = await self.call("GetStoreStatus", cards_pb2.GetStoreStatusRequest())
        return int(status.revision)

    def fetch(self, digest: str) -> bytes:
        connection = flight_client.LoRAFlightClient(self.flight_address)
        try:
            return connection.get(digest)
        finally:
            connection.close()


@pytest.fixture(autouse=True)
async def limit() -> AsyncIterator[None]:
    async with asyncio.timeout(_HANGING_S):
        yield


async def test_cards_and_revocations_go_both_ways_without_loops_when_stores_mirror(tmp_path):
    one, two = _free_address(), _free_address()
    a = _Peer(tmp_path / "a", one, [one, two])  # Its own address on the list does no harm.
    b = _Peer(tmp_path / "b", two, [one])
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
    one, two = _free_address(), _free_address()
    a = _Peer(tmp_path / "a", one, [])
    b = _Peer(tmp_path / "b", two, [one], mirror={"fetch": "on_use", "domains": ["test*"]})
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
