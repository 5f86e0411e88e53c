"""Calls to the card store, with deadlines; translates protobuf to `domain`."""

from __future__ import annotations

from typing import Any

import grpc.aio

from services.gateway import domain
from shared.cards import manifest as manifests
from shared.pb import cards_pb2, cards_pb2_grpc
from shared.rpc import client


class StoreCalls:
    """The card store."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Takes a connection to it."""
        self._stub: Any = cards_pb2_grpc.CardStoreStub(channel)

    async def manifest(self, card: str) -> manifests.Manifest:
        """The manifest of a card in the store, by `name@digest`."""
        record = await client.call(self._stub.GetCard, cards_pb2.GetCardRequest(reference=card))
        return manifests.parse(record.manifest_json)

    async def card(self, reference: str) -> domain.Card:
        """One card, by name, `name@digest` or `name@alias`."""
        request = cards_pb2.GetCardRequest(reference=reference)
        return _card(await client.call(self._stub.GetCard, request))

    async def cards(self) -> list[domain.Card]:
        """The latest version of every card."""
        reply = await client.call(self._stub.ListCards, cards_pb2.ListCardsRequest())
        return [_card(card) for card in reply.cards]

    async def status(self) -> domain.Store:
        """The card store."""
        reply = await client.call(self._stub.GetStoreStatus, cards_pb2.GetStoreStatusRequest())
        return domain.Store(revision=reply.revision, cards=reply.cards, size_bytes=reply.bytes)


def _card(message: Any) -> domain.Card:
    return domain.Card(
        name=message.name,
        digest=message.digest,
        version=message.version,
        domain=message.domain,
        description=message.description,
        size_bytes=message.size_bytes,
        created_at_ms=message.created_at_ms,
        aliases=tuple(message.aliases),
    )
