"""Follows a card store: what it holds now, then every change, over any interruption.

    async for news in watch.StoreFollower(find).follow():
        match news:
            case watch.Listing(): ...   # the whole truth: forget what is not in it
            case watch.Change(): ...    # one card published or withdrawn, or one alias moved

A follower first lists the cards, then watches from the revision of that listing. When the line
breaks or stays silent for three heartbeats, it looks for a store again and resumes from the last
revision; a store with another identity or a shorter history (restored from a backup, or a peer) is
listed anew, and so is one whose data plane moved or whose log no longer reaches back. It lists from
time to time in any case: what went wrong in between is right again by then. Shared by the router
and the inference nodes, which never see protobuf; stores read their peers' logs by `changes`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

import structlog
import zeroconf

from shared import discovery, errors
from shared.pb import cards_pb2, cards_pb2_grpc
from shared.rpc import client
from shared.security import protection as protections

Find = Callable[[], Awaitable[Sequence[discovery.StoreAddress]]]
"""Where stores may be right now, best first; usually `shared.discovery.find_stores`."""

SILENCE_S = 6.0
"""Three heartbeats: longer silence means that the line is dead."""
LIST_EVERY_S = 60.0
"""A follower lists the cards at least so often."""
LATEST = "latest"
"""The alias of the version that is served."""
_LISTING_DEADLINE_S = 10.0
_PAGE_CARDS = 200
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_log = structlog.get_logger(__name__)


class ChangeKind(enum.Enum):
    """What happened in the store."""

    CARD_PUBLISHED = "card_published"
    """A card was committed; its aliases tell whether it is the `latest` of its name."""
    ALIAS_MOVED = "alias_moved"
    """An alias points to this card now."""
    CARD_DELETED = "card_deleted"
    """Out of service; where its aliases point now, further changes tell."""
    CARD_REVOKED = "card_revoked"
    """Not to be trusted any more."""
    KEY_REVOKED = "key_revoked"
    """Of no single card; a CARD_REVOKED follows for each of the key's cards."""


class CardState(enum.Enum):
    """Whether a card may be used."""

    ACTIVE = "active"
    DELETED = "deleted"
    REVOKED = "revoked"


@dataclasses.dataclass(frozen=True)
class CardRecord:
    """One version of a card in the store's catalogue."""

    name: str
    digest: str
    version: str
    domain: str
    description: str
    base_fingerprint: str
    size_bytes: int
    created_at_ms: int
    """Unix time."""
    aliases: tuple[str, ...]
    manifest_json: str
    """See `shared.cards.manifest`."""
    signature_json: str = ""
    """DSSE envelope over the digest; empty where the card is not signed."""
    tenants: tuple[str, ...] = ()
    """Who may see it; empty: everybody."""
    state: CardState = CardState.ACTIVE
    origin: str = ""
    """Id of the store where it was committed first."""
    remote: bool = False
    """The store knows it from a peer; its bytes come with `BringCard`."""
    traceparent: str = ""
    """Of the trace in which it was committed."""


@dataclasses.dataclass(frozen=True)
class Listing:
    """The latest version of every card, at one revision."""

    cards: tuple[CardRecord, ...]
    revision: int
    control: str
    """`host:port` of the store's control plane."""
    flight: str
    """`host:port` of its data plane."""
    store_id: str = ""
    """Its identity."""
    revoked_keys: tuple[str, ...] = ()
    """Ids of the signers' keys that are not to be trusted."""


@dataclasses.dataclass(frozen=True)
class Change:
    """One line of the store's revision log."""

    kind: ChangeKind
    revision: int
    card: CardRecord | None
    """None for KEY_REVOKED alone."""
    alias: str = ""
    """The alias that moved; empty for everything else."""
    key_id: str = ""
    """The key that was revoked."""

    @property
    def makes_latest(self) -> CardRecord | None:
        """The card that is the version to serve from now on; None if this makes none so."""
        # The card is told as it stands now: it may have been revoked since.
        if self.card is None or self.card.state is not CardState.ACTIVE:
            return None
        if self.kind is ChangeKind.ALIAS_MOVED:
            return self.card if self.alias == LATEST else None
        # A peer's older version is published without becoming the latest.
        is_news = self.kind is ChangeKind.CARD_PUBLISHED and LATEST in self.card.aliases
        return self.card if is_news else None

    @property
    def retires(self) -> CardRecord | None:
        """The card that must not be served any more; None if there is none."""
        gone = (ChangeKind.CARD_DELETED, ChangeKind.CARD_REVOKED)
        return self.card if self.kind in gone else None


class StoreFollower:
    """One listener; follow with one task at a time."""

    def __init__(
        self,
        find: Find,
        silence_s: float = SILENCE_S,
        list_every_s: float = LIST_EVERY_S,
        protection: protections.Protection = protections.OPEN,
    ) -> None:
        """Prepares; connects when followed.

        Args:
            find: looks for stores, at the start and after every loss.
            silence_s: how long a line may be silent before it counts as dead.
            list_every_s: how old a listing may become before the next one.
            protection: what is shown to stores and asked of them.
        """
        self._protection = protection
        self._find = find
        self._silence_s, self._list_every_s = silence_s, list_every_s
        self._store_id = ""
        self._flight = ""
        self._listed_at_s = -float("inf")
        self.revision = 0
        """The last revision that was handed out."""
        self.connected = False
        """Whether the line is alive."""

    async def follow(self) -> AsyncGenerator[Listing | Change, None]:
        """Listings and changes, in the order of their revisions; never ends and never raises."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                for address in await self._find():
                    lines = self._one_store(address)
                    async with contextlib.aclosing(lines):
                        async for news in lines:
                            pause_s = _FIRST_PAUSE_S
                            if news is not None:
                                yield news
            except (OSError, zeroconf.Error, errors.SkillmeshError) as error:
                # Looking for stores touches the network, which may be down just as the store may.
                _log.info("no card store found", reason=str(error))
            await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _one_store(
        self, address: discovery.StoreAddress
    ) -> AsyncGenerator[Listing | Change | None, None]:
        """Follows one store until its line breaks; None for a sign of life."""
        try:
            async with client.channel(address.control, protection=self._protection) as channel:
                stub = cards_pb2_grpc.CardStoreStub(channel)
                status = await client.call(
                    stub.GetStoreStatus, cards_pb2.GetStoreStatusRequest(), self._silence_s
                )
                if not self._resumes(status, address.control):
                    yield await self._listed(stub, address.control)
                reading = changes(stub, self.revision, self._silence_s)
                async with contextlib.aclosing(reading):
                    async for change in reading:
                        self.connected = True
                        # What a store repeats is only a sign of life.
                        is_new = change is not None and change.revision > self.revision
                        if change is not None and is_new:
                            self.revision = change.revision
                        yield change if is_new else None
                        if time.monotonic() > self._listed_at_s + self._list_every_s:
                            yield await self._listed(stub, address.control)
        except errors.RevisionTooOldError:
            self._store_id = ""  # The next attempt lists.
        except errors.SkillmeshError as error:
            _log.info("card store lost", store=address.control, reason=str(error))
        finally:
            self.connected = False

    def _resumes(self, status: cards_pb2.StoreStatus, control: str) -> bool:
        """Whether a store is the one that was followed, and has come as far at least."""
        flight = discovery.reachable(status.flight_address, control)
        same = (status.store_id, flight) == (self._store_id, self._flight)
        return same and bool(status.revision >= self.revision)

    async def _listed(self, stub: cards_pb2_grpc.CardStoreStub, control: str) -> Listing:
        found = await listing(stub, control)
        self._store_id, self._flight = found.store_id, found.flight
        self.revision, self._listed_at_s = found.revision, time.monotonic()
        return found


async def listing(stub: cards_pb2_grpc.CardStoreStub, control: str) -> Listing:
    """The latest version of every card of a store, and where its data plane is.

    Args:
        stub: of the store.
        control: `host:port` under which it was reached.

    Raises:
        errors.SkillmeshError: the store can't be reached, or what it answered.
    """
    status = await client.call(
        stub.GetStoreStatus, cards_pb2.GetStoreStatusRequest(), _LISTING_DEADLINE_S
    )
    cards, revision, revoked_keys = await list_cards(stub)
    flight = discovery.reachable(status.flight_address, control)
    return Listing(cards, revision, control, flight, status.store_id, revoked_keys)


async def list_cards(
    stub: cards_pb2_grpc.CardStoreStub, all_versions: bool = False
) -> tuple[tuple[CardRecord, ...], int, tuple[str, ...]]:
    """The cards of a store, the revision to watch it from, and the keys that it has revoked.

    Args:
        stub: of the store.
        all_versions: not only those that `latest` points to.

    Raises:
        errors.SkillmeshError: the store can't be reached, or what it answered.
    """
    found: list[CardRecord] = []
    request = cards_pb2.ListCardsRequest(all_versions=all_versions, page_size=_PAGE_CARDS)
    first: cards_pb2.ListCardsResponse | None = None
    while True:
        response = await client.call(stub.ListCards, request, _LISTING_DEADLINE_S)
        # What changes while the pages come is watched from the first one on.
        first = first or response
        found += (card_record(card) for card in response.cards)
        if not response.next_page_token:
            return tuple(found), first.revision, tuple(first.revoked_keys)
        request.page_token = response.next_page_token


async def changes(
    stub: Any, from_revision: int, silence_s: float = SILENCE_S
) -> AsyncGenerator[Change | None, None]:
    """A store's log after a revision, then what comes; None for every other sign of life.

    Args:
        stub: of the store.
        from_revision: the last one seen.
        silence_s: how long the line may be silent before it counts as dead.

    Raises:
        errors.RevisionTooOldError: the log no longer reaches back so far.
        errors.UnavailableError: the line broke, fell silent, or the store ended it.
        errors.SkillmeshError: what else the store answered.
    """
    call = stub.Watch(cards_pb2.WatchRequest(from_revision=from_revision))
    try:
        while True:
            async with asyncio.timeout(silence_s), client.typed_errors():
                message = await call.read()
            if not isinstance(message, cards_pb2.Change):  # The end of the stream.
                raise errors.UnavailableError("the store ended the watch")
            yield _change(message)
    except TimeoutError:
        raise errors.UnavailableError(f"the store was silent for {silence_s:g} s") from None
    finally:
        call.cancel()


_KINDS = {
    cards_pb2.CARD_PUBLISHED: ChangeKind.CARD_PUBLISHED,
    cards_pb2.ALIAS_MOVED: ChangeKind.ALIAS_MOVED,
    cards_pb2.CARD_DELETED: ChangeKind.CARD_DELETED,
    cards_pb2.CARD_REVOKED: ChangeKind.CARD_REVOKED,
    cards_pb2.KEY_REVOKED: ChangeKind.KEY_REVOKED,
}


def _change(message: cards_pb2.Change) -> Change | None:
    kind = _KINDS.get(message.kind)
    if kind is None:  # A heartbeat, or a kind of a newer store.
        return None
    card = card_record(message.card) if message.HasField("card") else None
    return Change(kind, message.revision, card, message.alias, message.key_id)


_STATES = {
    cards_pb2.ACTIVE: CardState.ACTIVE,
    cards_pb2.DELETED: CardState.DELETED,
    cards_pb2.REVOKED: CardState.REVOKED,
}


def card_record(message: cards_pb2.CardRecord) -> CardRecord:
    """The dataclass of a protobuf record."""
    return CardRecord(
        name=message.name,
        digest=message.digest,
        version=message.version,
        domain=message.domain,
        description=message.description,
        base_fingerprint=message.base_fingerprint,
        size_bytes=message.size_bytes,
        created_at_ms=message.created_at_ms,
        aliases=tuple(message.aliases),
        manifest_json=message.manifest_json,
        signature_json=message.signature_json,
        tenants=tuple(message.tenants),
        state=_STATES.get(message.state, CardState.ACTIVE),
        origin=message.origin,
        remote=message.remote,
        traceparent=message.traceparent,
    )
