"""Stores of a mesh, each of two real processes over loopback, and what tests ask of them."""

from __future__ import annotations

import asyncio
import json
import pathlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from shared import errors
from shared.cards import card as cards
from shared.cards import format as formats
from shared.flight import client as flight_client
from shared.pb import cards_pb2, cards_pb2_grpc, types_pb2
from shared.rpc import client
from tests import fakes
from tests.contract import card_store_processes as processes

T = TypeVar("T")
HANGING_S = 180.0
"""Nothing here waits for long: a test that hangs fails."""


async def until(condition: Callable[[], Awaitable[T]]) -> T:
    """What a condition gives once that is something."""
    async with asyncio.timeout(HANGING_S):
        while not (found := await condition()):
            await asyncio.sleep(0.02)
    return found


class MeshStore(processes.Store):
    """A store of a mesh."""

    def __init__(
        self,
        root: pathlib.Path,
        address: str,
        others: list[str],
        discovery: dict[str, Any] | None = None,
        **federation: Any,
    ) -> None:
        self.address = address
        self._sections = {
            "federation": {"enabled": True, "peers": others, **federation},
            "discovery": discovery or {"zeroconf": False},
        }
        super().__init__(root)

    def write_config(self, root: pathlib.Path) -> pathlib.Path:
        path = processes.write_config(root, address=self.address)
        path.write_text(json.dumps(json.loads(path.read_text()) | self._sections))
        return path

    async def publish(self, name: str, version: str = "1.0.0", seed: int = 0) -> str:
        return await self.publish_card(fakes.tiny_card(name, version, seed))

    async def publish_card(self, card: cards.LoRACard) -> str:
        data = formats.LoRAFormat.to_bytes(card)
        connection = flight_client.LoRAFlightClient(self.flight_address)
        digest = await asyncio.to_thread(connection.put, "card", data)
        connection.close()
        ticket = types_pb2.Ticket(kind="card", digest=digest)
        request = cards_pb2.CommitRequest(
            idempotency_key=digest, ticket=ticket, signature_json=fakes.envelope(card, digest)
        )
        await self.call("Commit", request)
        return digest

    async def call(self, method: str, request: Any) -> Any:
        async with client.channel(self.address) as channel:
            stub = cards_pb2_grpc.CardStoreStub(channel)
            return await client.call(getattr(stub, method), request, 30.0)

    async def get(self, digest: str) -> cards_pb2.CardRecord:
        return await self.call("GetCard", cards_pb2.GetCardRequest(reference=digest))

    async def until_known(self, digest: str, state: Any = cards_pb2.ACTIVE) -> cards_pb2.CardRecord:
        async def known() -> cards_pb2.CardRecord | None:
            try:
                record = await self.get(digest)
            except (errors.NotFoundError, errors.UnavailableError):
                return None
            return record if record.state == state else None

        return await until(known)

    async def peers(self) -> list[str]:
        """Addresses of the peers that it follows."""
        answer = await self.call("ListPeers", cards_pb2.ListPeersRequest())
        return [peer.control for peer in answer.peers]

    async def published(self) -> list[str]:
        """The digests whose publication its log tells of, in order."""
        found = []
        async with client.channel(self.address) as channel:
            call = cards_pb2_grpc.CardStoreStub(channel).Watch(cards_pb2.WatchRequest(), timeout=30)
            async for change in call:
                if change.kind == cards_pb2.HEARTBEAT:
                    call.cancel()
                    break
                if change.kind == cards_pb2.CARD_PUBLISHED:
                    found.append(change.card.digest)
        return found

    async def log_length(self) -> int:
        status = await self.call("GetStoreStatus", cards_pb2.GetStoreStatusRequest())
        return int(status.revision)

    def fetch(self, digest: str) -> bytes:
        connection = flight_client.LoRAFlightClient(self.flight_address)
        try:
            return connection.get(digest)
        finally:
            connection.close()
