"""Translates the protobuf of `cards.proto` to and from the card store's domain; decides nothing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from services.card_store import records, store
from shared.pb import cards_pb2, cards_pb2_grpc

_KINDS = {
    records.ChangeKind.HEARTBEAT: cards_pb2.HEARTBEAT,
    records.ChangeKind.CARD_PUBLISHED: cards_pb2.CARD_PUBLISHED,
    records.ChangeKind.ALIAS_MOVED: cards_pb2.ALIAS_MOVED,
}


class CardStoreService(cards_pb2_grpc.CardStoreServicer):
    """The control plane's servicer."""

    def __init__(self, card_store: store.CardStore) -> None:
        """Takes the store."""
        self._store = card_store

    async def Commit(
        self, request: cards_pb2.CommitRequest, context: Any
    ) -> cards_pb2.CommitResponse:
        """Makes an upload part of the catalogue; the digest makes it idempotent."""
        ticket = request.ticket
        commit = await self._store.commit(ticket.kind, ticket.digest, ticket.size_bytes)
        return cards_pb2.CommitResponse(
            record=None if commit.record is None else _record(commit.record),
            revision=commit.revision,
            created=commit.created,
        )

    async def GetCard(
        self, request: cards_pb2.GetCardRequest, context: Any
    ) -> cards_pb2.CardRecord:
        """Finds one card."""
        return _record(await self._store.get(request.reference))

    async def ListCards(
        self, request: cards_pb2.ListCardsRequest, context: Any
    ) -> cards_pb2.ListCardsResponse:
        """Lists cards."""
        listing = await self._store.list_cards(request.all_versions)
        return cards_pb2.ListCardsResponse(
            cards=[_record(card) for card in listing.cards], revision=listing.revision
        )

    async def SetAlias(
        self, request: cards_pb2.SetAliasRequest, context: Any
    ) -> cards_pb2.CardRecord:
        """Moves an alias."""
        return _record(
            await self._store.set_alias(
                request.name, request.alias, request.digest, request.idempotency_key
            )
        )

    async def Watch(
        self, request: cards_pb2.WatchRequest, context: Any
    ) -> AsyncIterator[cards_pb2.Change]:
        """Streams the revision log."""
        async with contextlib.aclosing(self._store.watch(request.from_revision)) as changes:
            async for change in changes:
                yield cards_pb2.Change(
                    kind=_KINDS[change.kind],
                    revision=change.revision,
                    card=None if change.card is None else _record(change.card),
                    alias=change.alias,
                )

    async def GetStoreStatus(
        self, request: cards_pb2.GetStoreStatusRequest, context: Any
    ) -> cards_pb2.StoreStatus:
        """Tells the store's condition."""
        status = await self._store.status()
        return cards_pb2.StoreStatus(
            store_id=status.store_id,
            revision=status.totals.revision,
            cards=status.totals.cards,
            datasets=status.totals.datasets,
            bytes=status.totals.size_bytes,
            flight_address=status.flight_address,
            watchers=status.watchers,
        )


def _record(card: records.CardRecord) -> cards_pb2.CardRecord:
    return cards_pb2.CardRecord(
        name=card.name,
        digest=card.digest,
        version=card.version,
        domain=card.domain,
        description=card.description,
        base_fingerprint=card.base_fingerprint,
        size_bytes=card.size_bytes,
        created_at_ms=card.created_at_ms,
        aliases=card.aliases,
        manifest_json=card.manifest_json,
    )
