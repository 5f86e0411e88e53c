"""Translates the protobuf of `cards.proto` to and from the card store's domain; decides nothing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from services.card_store import peers, records, residency, store, view
from shared import errors
from shared.pb import cards_pb2, cards_pb2_grpc
from shared.rpc import access
from shared.security import callers
from shared.telemetry import tracing

_KINDS = {
    records.ChangeKind.HEARTBEAT: cards_pb2.HEARTBEAT,
    records.ChangeKind.CARD_PUBLISHED: cards_pb2.CARD_PUBLISHED,
    records.ChangeKind.ALIAS_MOVED: cards_pb2.ALIAS_MOVED,
    records.ChangeKind.CARD_DELETED: cards_pb2.CARD_DELETED,
    records.ChangeKind.CARD_REVOKED: cards_pb2.CARD_REVOKED,
    records.ChangeKind.KEY_REVOKED: cards_pb2.KEY_REVOKED,
}
_STATES = {
    records.CardState.ACTIVE: cards_pb2.ACTIVE,
    records.CardState.DELETED: cards_pb2.DELETED,
    records.CardState.REVOKED: cards_pb2.REVOKED,
}


class CardStoreService(cards_pb2_grpc.CardStoreServicer):
    """The control plane's servicer."""

    def __init__(
        self,
        card_store: store.CardStore,
        nodes: residency.Residency,
        admitted: callers.Callers,
        followed: peers.Peers | None = None,
    ) -> None:
        """Takes the store, what nodes hold, who may call, and the peers of a store with some."""
        self._store, self._nodes, self._peers = card_store, nodes, followed
        self._admitted = admitted
        self._latest: tuple[records.Change | None, cards_pb2.Change] = (None, cards_pb2.Change())

    def _view(self, context: Any) -> view.View:
        """The store as whoever makes this call may see it."""
        caller = access.caller_of(self._admitted, context.invocation_metadata())
        return view.View(self._store, caller)

    async def Commit(
        self, request: cards_pb2.CommitRequest, context: Any
    ) -> cards_pb2.CommitResponse:
        """Makes an upload part of the catalogue; the digest makes it idempotent."""
        ticket = request.ticket
        commit = await self._view(context).commit(
            ticket.kind,
            ticket.digest,
            ticket.size_bytes,
            request.signature_json,
            request.tenants,
            tracing.traceparent(),
        )
        return cards_pb2.CommitResponse(
            record=None if commit.record is None else _record(commit.record),
            revision=commit.revision,
            created=commit.created,
        )

    async def GetCard(
        self, request: cards_pb2.GetCardRequest, context: Any
    ) -> cards_pb2.CardRecord:
        """Finds one card."""
        return _record(await self._view(context).get(request.reference))

    async def ListCards(
        self, request: cards_pb2.ListCardsRequest, context: Any
    ) -> cards_pb2.ListCardsResponse:
        """Lists cards, page by page where a page size is given."""
        query = records.Query(
            all_versions=request.all_versions,
            page_size=request.page_size,
            page_token=request.page_token,
            text=request.text,
            name=request.name,
            domain=request.domain,
            base_fingerprint=request.base_fingerprint,
        )
        listing = await self._view(context).list_cards(query)
        return cards_pb2.ListCardsResponse(
            cards=[_record(card) for card in listing.cards],
            revision=listing.revision,
            next_page_token=listing.next_page_token,
            revoked_keys=listing.revoked_keys,
        )

    async def SetAlias(
        self, request: cards_pb2.SetAliasRequest, context: Any
    ) -> cards_pb2.CardRecord:
        """Moves an alias."""
        return _record(
            await self._view(context).set_alias(
                request.name, request.alias, request.digest, request.idempotency_key
            )
        )

    async def RollBackAlias(
        self, request: cards_pb2.RollBackAliasRequest, context: Any
    ) -> cards_pb2.CardRecord:
        """Moves an alias back."""
        return _record(
            await self._view(context).roll_back(
                request.name, request.alias, request.idempotency_key
            )
        )

    async def ListAliasMoves(
        self, request: cards_pb2.ListAliasMovesRequest, context: Any
    ) -> cards_pb2.ListAliasMovesResponse:
        """Tells an alias's history."""
        moves = await self._view(context).alias_moves(request.name, request.alias)
        return cards_pb2.ListAliasMovesResponse(
            moves=[
                cards_pb2.AliasMove(
                    revision=move.revision, digest=move.digest, moved_at_ms=move.at_ms
                )
                for move in moves
            ]
        )

    async def DeleteCard(
        self, request: cards_pb2.DeleteCardRequest, context: Any
    ) -> cards_pb2.CardRecord:
        """Takes a card out of service."""
        return _record(await self._view(context).delete(request.digest, request.reason))

    async def Revoke(
        self, request: cards_pb2.RevokeRequest, context: Any
    ) -> cards_pb2.RevokeResponse:
        """Declares a card or a key not to be trusted any more."""
        if request.digest:
            retired = await self._view(context).revoke_card(request.digest, request.reason)
        else:
            retired = await self._view(context).revoke_key(request.key_id, request.reason)
        return cards_pb2.RevokeResponse(revision=retired.revision, digests=retired.digests)

    async def BringCard(
        self, request: cards_pb2.BringCardRequest, context: Any
    ) -> cards_pb2.CardRecord:
        """Returns a card whose bytes are here."""
        record = await self._view(context).get_active(request.digest)
        if record.remote and self._peers is not None:
            await self._peers.bring(record)
            record = await self._store.get(request.digest)
        elif record.remote:
            raise errors.PreconditionError(
                f"card {record.name}@{record.digest} is at a peer, and this store follows none"
            )
        return _record(record)

    async def ReportResidency(
        self, request: cards_pb2.ReportResidencyRequest, context: Any
    ) -> cards_pb2.ReportResidencyResponse:
        """Takes what a node holds."""
        self._nodes.report(
            records.NodeResidency(
                node_id=request.node_id,
                base_fingerprint=request.base_fingerprint,
                revision=request.revision,
                digests=tuple(request.digests),
                reported_at_ms=0,
                address=request.address,
            )
        )
        return cards_pb2.ReportResidencyResponse()

    async def ListResidency(
        self, request: cards_pb2.ListResidencyRequest, context: Any
    ) -> cards_pb2.ListResidencyResponse:
        """Tells what nodes hold."""
        nodes = await self._view(context).residency(self._nodes.nodes(), request.digest)
        return cards_pb2.ListResidencyResponse(
            nodes=[
                cards_pb2.NodeResidency(
                    node_id=node.node_id,
                    base_fingerprint=node.base_fingerprint,
                    revision=node.revision,
                    digests=node.digests,
                    reported_at_ms=node.reported_at_ms,
                    address=node.address,
                )
                for node in nodes
            ]
        )

    async def ListPeers(
        self, request: cards_pb2.ListPeersRequest, context: Any
    ) -> cards_pb2.ListPeersResponse:
        """Tells which stores this one follows."""
        lines = [] if self._peers is None else self._peers.lines()
        return cards_pb2.ListPeersResponse(
            peers=[
                cards_pb2.Peer(
                    store_id=line.store_id,
                    control=line.control,
                    revision=line.revision,
                    connected=line.connected,
                    cards=line.cards,
                )
                for line in lines
            ]
        )

    async def Watch(
        self, request: cards_pb2.WatchRequest, context: Any
    ) -> AsyncIterator[cards_pb2.Change]:
        """Streams the revision log."""
        async with contextlib.aclosing(self._view(context).watch(request.from_revision)) as changes:
            async for change in changes:
                yield self._message(change)

    def _message(self, change: records.Change) -> cards_pb2.Change:
        """The message of a change; all watchers get the same one."""
        if change is not self._latest[0]:
            message = cards_pb2.Change(
                kind=_KINDS[change.kind],
                revision=change.revision,
                card=None if change.card is None else _record(change.card),
                alias=change.alias,
                key_id=change.key_id,
                at_us=change.at_us,
            )
            self._latest = (change, message)
        return self._latest[1]

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
            oldest_revision=status.totals.oldest_revision,
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
        signature_json=card.signature_json,
        tenants=card.tenants,
        state=_STATES[card.state],
        origin=card.origin,
        remote=card.remote,
        traceparent=card.traceparent,
    )
