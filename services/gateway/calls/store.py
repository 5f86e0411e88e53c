"""Calls to the card store, with deadlines; translates protobuf to `domain`."""

from __future__ import annotations

import uuid
from typing import Any

import grpc.aio

from services.gateway import domain
from shared.cards import manifest as manifests
from shared.pb import cards_pb2, cards_pb2_grpc, types_pb2
from shared.rpc import client

_BRING_DEADLINE_S = 60.0


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

    async def versions(self, name: str) -> list[domain.Card]:
        """The versions of a card that are in service, the newest first; none where there is none.

        Raises:
            errors.InvalidInputError: no card can have that name.
        """
        manifests.split_reference(name)
        request = cards_pb2.ListCardsRequest(all_versions=True, name=name)
        reply = await client.call(self._stub.ListCards, request)
        return [_card(card) for card in reply.cards]

    async def signatures(self) -> list[tuple[domain.Card, str]]:
        """All versions of all cards in service, each with its DSSE envelope, which may be empty."""
        request = cards_pb2.ListCardsRequest(all_versions=True)
        reply = await client.call(self._stub.ListCards, request)
        return [(_card(card), card.signature_json) for card in reply.cards]

    async def record(self, reference: str) -> domain.CardRecord:
        """All about one card.

        Args:
            reference: name, name@digest, name@alias or digest.

        Raises:
            errors.NotFoundError: the store has none like that.
        """
        request = cards_pb2.GetCardRequest(reference=reference)
        found = await client.call(self._stub.GetCard, request)
        manifest = manifests.parse(found.manifest_json)
        return domain.CardRecord(_card(found), manifest, found.signature_json)

    async def moves(self, name: str, alias: str) -> list[domain.Move]:
        """Where an alias pointed, the newest first."""
        request = cards_pb2.ListAliasMovesRequest(name=name, alias=alias)
        reply = await client.call(self._stub.ListAliasMoves, request)
        return [domain.Move(one.revision, one.digest, one.moved_at_ms) for one in reply.moves]

    async def residency(self, digest: str = "") -> list[domain.Residency]:
        """What the nodes hold; with a digest, those nodes alone that hold that card."""
        request = cards_pb2.ListResidencyRequest(digest=digest)
        reply = await client.call(self._stub.ListResidency, request)
        return [_residency(node) for node in reply.nodes]

    async def promote(
        self, name: str, alias: str, digest: str, idempotency_key: str = ""
    ) -> domain.Card:
        """Points an alias to a card; the key, where given, makes a repeated call one move."""
        request = cards_pb2.SetAliasRequest(
            idempotency_key=idempotency_key or uuid.uuid4().hex,
            name=name,
            alias=alias,
            digest=digest,
        )
        return _card(await client.call(self._stub.SetAlias, request))

    async def roll_back(self, name: str, alias: str, idempotency_key: str = "") -> domain.Card:
        """Moves an alias to where it pointed before; see `promote` for the key."""
        request = cards_pb2.RollBackAliasRequest(
            idempotency_key=idempotency_key or uuid.uuid4().hex, name=name, alias=alias
        )
        return _card(await client.call(self._stub.RollBackAlias, request))

    async def revoke(self, digest: str, reason: str) -> list[str]:
        """Declares a card not to be trusted any more; the digests of all that are revoked by it."""
        request = cards_pb2.RevokeRequest(digest=digest, reason=reason)
        reply = await client.call(self._stub.Revoke, request)
        return list(reply.digests)

    async def bring(self, digest: str) -> None:
        """Has the store fetch the bytes of a card that it knows from a peer."""
        request = cards_pb2.BringCardRequest(digest=digest)
        await client.call(self._stub.BringCard, request, _BRING_DEADLINE_S)

    async def commit(self, digest: str, signature_json: str) -> domain.Card:
        """Publishes a card whose bytes are in the data plane already; repeating it is safe.

        Args:
            digest: of its file.
            signature_json: its DSSE envelope; empty where it is not signed.
        """
        request = cards_pb2.CommitRequest(
            idempotency_key=f"commit-{digest}",
            ticket=types_pb2.Ticket(digest=digest, kind="card"),
            signature_json=signature_json,
        )
        reply = await client.call(self._stub.Commit, request)
        return _card(reply.record)

    async def status(self) -> domain.Store:
        """The card store."""
        reply = await client.call(self._stub.GetStoreStatus, cards_pb2.GetStoreStatusRequest())
        return domain.Store(
            revision=reply.revision,
            cards=reply.cards,
            size_bytes=reply.bytes,
            store_id=reply.store_id,
            flight_address=reply.flight_address,
        )


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
        state=cards_pb2.CardState.Name(message.state or cards_pb2.ACTIVE),
        base_fingerprint=message.base_fingerprint,
        origin=message.origin,
        is_remote=message.remote,
    )


def _residency(message: Any) -> domain.Residency:
    return domain.Residency(
        node_id=message.node_id,
        address=message.address,
        base_fingerprint=message.base_fingerprint,
        revision=message.revision,
        digests=tuple(message.digests),
        reported_at_ms=message.reported_at_ms,
    )
