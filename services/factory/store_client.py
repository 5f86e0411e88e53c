"""The card store over gRPC, in the factory's own words (`partners.Store`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import grpc

from services.factory import messages, partners
from shared import discovery, errors
from shared.cards import manifest as manifests
from shared.pb import cards_pb2, cards_pb2_grpc
from shared.rpc import client
from shared.security import protection as protections

_LATEST = "latest"
"""The alias that nodes and router follow."""


class StoreClient:
    """`partners.Store`, at whatever address discovery finds at first use."""

    def __init__(
        self,
        find: Callable[[], Awaitable[Sequence[discovery.StoreAddress]]],
        protection: protections.Protection = protections.OPEN,
    ) -> None:
        """Takes what finds the stores, the best one first, and what is shown to them."""
        self._find, self._protection = find, protection
        self._address, self._lost = "", ""
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._looking = asyncio.Lock()

    async def close(self) -> None:
        """Closes the channels."""
        for channel in self._channels.values():
            await channel.close(None)

    async def versions(self, name: str) -> list[str]:
        """The semantic versions of the cards of that name."""
        return [record.version for record in await self._of_name(name)]

    async def latest(self, name: str) -> partners.Published | None:
        """The version of a card that serves, with its dataset."""
        record = await self._latest(name)
        if record is None:
            return None
        manifest = manifests.parse(record.manifest_json)
        lineage = manifest.lineage
        if lineage is None:
            # Merged, extracted or imported: nobody knows what it should answer.
            return None
        return partners.Published(_identity(record), lineage.dataset_digest, manifest.domain)

    async def owners(self, card: str) -> tuple[str, ...] | None:
        """The tenants who alone see a card."""
        try:
            record = await self._call("GetCard", cards_pb2.GetCardRequest(reference=card))
        except errors.NotFoundError:
            return None
        return tuple(record.tenants)

    async def serving(self, name: str) -> str:
        """The version of a card that serves."""
        record = await self._latest(name)
        return "" if record is None else _identity(record)

    async def versions_before(self, card: str) -> list[str]:
        """The versions that served before a card, as far as they were not withdrawn."""
        name, _, digest = card.partition("@")
        history = cards_pb2.ListAliasMovesRequest(name=name, alias=_LATEST)
        moves = (await self._call("ListAliasMoves", history)).moves
        in_service = {record.digest for record in await self._of_name(name)}
        served = _going_back([move.digest for move in reversed(moves)])
        before = served[: served.index(digest)] if digest in served else []
        return [manifests.card_identity(name, one) for one in reversed(before) if one in in_service]

    async def commit(
        self, idempotency_key: str, ticket: partners.Ticket, signature_json: str = ""
    ) -> str:
        """Publishes an uploaded card or keeps a dataset."""
        request = cards_pb2.CommitRequest(
            idempotency_key=idempotency_key,
            ticket=messages.to_ticket(ticket),
            signature_json=signature_json,
        )
        response = await self._call("Commit", request)
        if not response.HasField("record") or not response.record.name:
            return ""
        return _identity(response.record)

    async def withdraw(self, idempotency_key: str, card: str, before: str) -> str:
        """Lets a version serve instead of a card, if that one serves now."""
        name, _, digest = before.partition("@")
        serving = await self.serving(name)
        if serving != card:
            # A newer version was published, or somebody was quicker: theirs is the say.
            return serving
        move = cards_pb2.SetAliasRequest(
            idempotency_key=idempotency_key, name=name, alias=_LATEST, digest=digest
        )
        return _identity(await self._call("SetAlias", move))

    async def _latest(self, name: str) -> Any:
        """The record that the alias points to, or None."""
        found = await self._of_name(name)
        return next((record for record in found if _LATEST in record.aliases), None)

    async def _of_name(self, name: str) -> list[Any]:
        """Records of all versions in service, newest first."""
        request = cards_pb2.ListCardsRequest(all_versions=True, name=name)
        response = await self._call("ListCards", request)
        return [record for record in response.cards if record.name == name]

    async def _call(self, method: str, request: Any) -> Any:
        stub: Any = cards_pb2_grpc.CardStoreStub(await self._channel())
        try:
            return await client.call(getattr(stub, method), request)
        except errors.UnavailableError:
            # The store may have come back elsewhere: look again before the next try.
            self._address, self._lost = "", self._address
            raise

    async def _channel(self) -> grpc.aio.Channel:
        async with self._looking:
            if not self._address:
                stores = await self._find()
                if not stores:
                    raise errors.UnavailableError("no card store was found; is one running?")
                found = [store.control for store in stores]
                # Of several the one behind the one that was lost.
                at = found.index(self._lost) + 1 if self._lost in found else 0
                self._address = found[at % len(found)]
            if self._address not in self._channels:
                self._channels[self._address] = client.channel(
                    self._address, protection=self._protection
                )
            return self._channels[self._address]


def _going_back(moves: Iterable[str]) -> list[str]:
    """Where an alias pointed, oldest first, without what it has gone back from.

    Args:
        moves: digests that it was moved to, oldest first.
    """
    path = list[str]()
    for digest in moves:
        path = [*(path[: path.index(digest)] if digest in path else path), digest]
    return path


def _identity(record: Any) -> str:
    return manifests.card_identity(record.name, record.digest)
