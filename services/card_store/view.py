"""`View`: the card store as one caller may see and change it.

Another tenant's card is not found, in lists, in fetches and in the log alike: that there is one is
nobody else's business. What everybody sees, only a caller without tenants may change. Roles were
looked at before, where calls come in (`shared.rpc.access`, `shared.flight.access`).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Sequence

import structlog

from services.card_store import records, store
from shared import errors
from shared.cards import keyring
from shared.cards import manifest as manifests
from shared.security import callers

_log = structlog.get_logger(__name__)


def is_visible(record: records.CardRecord, tenants: callers.Tenants) -> bool:
    """Whether a caller may know of a card."""
    return callers.may_see(tenants, record.tenants)


def check_visible(record: records.CardRecord, tenants: callers.Tenants, reference: str) -> None:
    """Answers for a hidden card what is answered for one that does not exist.

    Raises:
        errors.NotFoundError: the caller may not know of it.
    """
    if not is_visible(record, tenants):
        raise errors.NotFoundError(f"the card store knows no card {reference!r}")


class View:
    """What one caller may do with a store."""

    def __init__(self, card_store: store.CardStore, caller: callers.Caller) -> None:
        """Takes the store, and who asks."""
        self._store, self._caller = card_store, caller
        self._tenants: callers.Tenants = caller.tenants

    async def commit(
        self,
        kind: str,
        digest: str,
        size_bytes: int,
        signature_json: str,
        tenants: Sequence[str],
        traceparent: str = "",
    ) -> records.Commit:
        """See `CardStore.commit`; cards of a caller with tenants are theirs, if it names none.

        Raises:
            errors.ForbiddenError: a tenant that is not the caller's, or the name is another's.
        """
        accept = None if self._tenants is None else self._check_name_is_free
        commit = await self._store.commit(
            kind, digest, size_bytes, signature_json, self._own(tenants), accept, traceparent
        )
        if commit.record is not None and not is_visible(commit.record, self._tenants):
            raise errors.NotFoundError(
                f"nothing was uploaded with digest {digest}; upload it over Flight, then commit"
            )
        return commit

    async def get(self, reference: str) -> records.CardRecord:
        """See `CardStore.get`."""
        record = await self._store.get(reference)
        check_visible(record, self._tenants, reference)
        return record

    async def get_active(self, reference: str) -> records.CardRecord:
        """The same for a card that may still be used.

        Raises:
            errors.PreconditionError: it was deleted or revoked.
        """
        record = await self.get(reference)
        if record.state is not records.CardState.ACTIVE:
            raise errors.PreconditionError(
                f"card {record.name}@{record.digest} was {record.state.value.lower()}"
            )
        return record

    async def list_cards(self, query: records.Query) -> records.Listing:
        """See `CardStore.list_cards`."""
        return await self._store.list_cards(dataclasses.replace(query, tenants=self._tenants))

    async def alias_moves(self, name: str, alias: str) -> list[records.PastMove]:
        """See `CardStore.alias_moves`."""
        moves = await self._store.alias_moves(name, alias)
        if self._tenants is None:
            return moves
        cards = [await self._store.get(move.digest) for move in moves]
        pairs = zip(moves, cards, strict=True)
        return [move for move, card in pairs if is_visible(card, self._tenants)]

    async def watch(self, from_revision: int) -> AsyncGenerator[records.Change, None]:
        """See `CardStore.watch`."""
        async with contextlib.aclosing(self._store.watch(from_revision)) as changes:
            async for change in changes:
                if change.card is None or is_visible(change.card, self._tenants):
                    yield change

    async def residency(
        self, nodes: Sequence[records.NodeResidency], digest: str
    ) -> list[records.NodeResidency]:
        """What nodes hold, as far as the caller may know of it.

        Args:
            nodes: with everything.
            digest: only nodes that hold this one; empty: all.
        """
        if self._tenants is not None:
            told = {digest for node in nodes for digest in node.digests}
            visible = {digest for digest in told if await self._is_known(digest)}
            nodes = [
                dataclasses.replace(node, digests=tuple(d for d in node.digests if d in visible))
                for node in nodes
            ]
        return [node for node in nodes if not digest or digest in node.digests]

    async def set_alias(
        self, name: str, alias: str, digest: str, idempotency_key: str
    ) -> records.CardRecord:
        """See `CardStore.set_alias`.

        Raises:
            errors.ForbiddenError: the name is not the caller's alone.
        """
        await self._check_owns_name(name)
        return await self._store.set_alias(name, alias, digest, idempotency_key)

    async def roll_back(self, name: str, alias: str, idempotency_key: str) -> records.CardRecord:
        """See `CardStore.roll_back`.

        Raises:
            errors.ForbiddenError: the name is not the caller's alone.
        """
        await self._check_owns_name(name)
        return await self._store.roll_back(name, alias, idempotency_key)

    async def delete(self, digest: str, reason: str) -> records.CardRecord:
        """See `CardStore.delete`; returns the tombstone."""
        await self._check_owns_card(digest)
        await self._store.delete(digest)
        _log.info("card deleted", digest=digest, by=self._caller.name, reason=reason)
        return await self._store.get(digest)

    async def revoke_card(self, digest: str, reason: str) -> records.Retired:
        """See `CardStore.revoke_card`."""
        await self._check_owns_card(digest)
        retired = await self._store.revoke_card(digest)
        _log.info("card revoked", digest=digest, by=self._caller.name, reason=reason)
        return retired

    async def revoke_key(self, key_id: str, reason: str) -> records.Retired:
        """See `CardStore.revoke_key`; a key signs for all tenants."""
        self.check_sees_all("revokes a key, which signs for every tenant")
        if not keyring.is_key_id(key_id):
            # A misspelt key would be revoked for ever, and the one that was meant would not be.
            raise errors.InvalidInputError(
                f"key_id {key_id[:80]!r} is not the id of a key: 32 hex digits in lower case"
            )
        retired = await self._store.revoke_key(key_id, reason)
        _log.info("key revoked", key=key_id, by=self._caller.name, reason=reason)
        return retired

    def check_sees_all(self, call: str) -> None:
        """Checks for a call that concerns the cards of every tenant.

        Raises:
            errors.ForbiddenError: the caller is there for some tenants alone.
        """
        if self._tenants is not None:
            raise self._forbidden(call)

    def _own(self, tenants: Sequence[str]) -> Sequence[str]:
        if self._tenants is None:
            return tenants
        if strange := sorted(set(tenants) - self._tenants):
            raise self._forbidden(f"publishes for {', '.join(strange)}")
        if not (chosen := tenants or sorted(self._tenants)):
            raise self._forbidden("publishes for everybody")
        return chosen

    def _check_name_is_free(self, versions: Sequence[records.CardRecord]) -> None:
        """A name that others use must not be taken over by somebody else's newer version."""
        if not all(map(self._owns, versions)):
            raise self._forbidden(f"publishes {versions[0].name!r}, a name that others use")

    async def _check_owns_name(self, name: str) -> None:
        if self._tenants is None:
            return
        versions = records.Query(all_versions=True, name=name)
        listing = await self._store.list_cards(versions)
        if not any(is_visible(card, self._tenants) for card in listing.cards):
            raise errors.NotFoundError(f"the card store knows no card {name!r}")
        if not all(self._owns(card) for card in listing.cards):
            raise self._forbidden(f"moves an alias of {name!r}, which others use too")

    async def _is_known(self, digest: str) -> bool:
        """Whether there is such a card, as far as the caller may know."""
        # A node may report anything.
        if not manifests.is_digest(digest):
            return False
        try:
            await self.get(digest)
        except errors.NotFoundError:
            return False
        return True

    async def _check_owns_card(self, digest: str) -> None:
        if not manifests.is_digest(digest):
            raise errors.InvalidInputError(
                f"digest {digest[:80]!r} is not a SHA-256 in lower-case hex"
            )
        card = await self.get(digest)
        if not self._owns(card):
            raise self._forbidden(f"takes {card.name!r} from everybody")

    def _owns(self, card: records.CardRecord) -> bool:
        if self._tenants is None:
            return True
        return bool(card.tenants) and self._tenants.issuperset(card.tenants)

    def _forbidden(self, what: str) -> errors.ForbiddenError:
        theirs = ", ".join(sorted(self._tenants or ())) or "no tenant"
        return errors.ForbiddenError(
            f"the token {self._caller.name!r} is for {theirs}, and this call {what}; use a token "
            "without tenants, or one of those concerned"
        )
