"""Follows a card store: what it holds now, then every change, over any interruption.

    async for news in watch.StoreFollower(find).follow():
        match news:
            case watch.Listing(): ...   # the whole truth: forget what is not in it
            case watch.Change(): ...    # one card published, or one alias moved

A follower first lists the cards, then watches from the revision of that listing. When the line
breaks or stays silent for three heartbeats, it looks for a store again and resumes from the last
revision; a store with another identity or a shorter history (restored from a backup, or a peer) is
listed anew, and so is one whose data plane moved. Shared by the router and the inference nodes,
which never see protobuf.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

import structlog
import zeroconf

from shared import discovery, errors
from shared.pb import cards_pb2, cards_pb2_grpc
from shared.rpc import client

Find = Callable[[], Awaitable[Sequence[discovery.StoreAddress]]]
"""Where stores may be right now, best first; usually `shared.discovery.find_stores`."""

SILENCE_S = 6.0
"""Three heartbeats: longer silence means that the line is dead."""
LATEST = "latest"
"""The alias of the version that is served."""
_LISTING_DEADLINE_S = 10.0
_PAGE_CARDS = 200
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_log = structlog.get_logger(__name__)


class ChangeKind(enum.Enum):
    """What happened in the store."""

    CARD_PUBLISHED = "card_published"
    """A card was committed; it is the `latest` of its name now."""
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


@dataclasses.dataclass(frozen=True)
class Listing:
    """The latest version of every card, at one revision."""

    cards: tuple[CardRecord, ...]
    revision: int
    control: str
    """`host:port` of the store's control plane."""
    flight: str
    """`host:port` of its data plane."""


@dataclasses.dataclass(frozen=True)
class Change:
    """One line of the store's revision log."""

    kind: ChangeKind
    revision: int
    card: CardRecord | None
    """None for KEY_REVOKED alone."""
    alias: str
    """The alias that moved; empty for everything else."""
    key_id: str = ""
    """The key that was revoked."""

    @property
    def makes_latest(self) -> CardRecord | None:
        """The card that is the version to serve from now on; None if this makes none so."""
        if self.kind is ChangeKind.ALIAS_MOVED:
            return self.card if self.alias == LATEST else None
        is_published = self.kind is ChangeKind.CARD_PUBLISHED
        # A peer's older version is published without becoming the latest.
        is_latest = self.card is not None and (LATEST in self.card.aliases or not self.card.origin)
        return self.card if is_published and is_latest else None

    @property
    def retires(self) -> CardRecord | None:
        """The card that must not be served any more; None if there is none."""
        gone = (ChangeKind.CARD_DELETED, ChangeKind.CARD_REVOKED)
        return self.card if self.kind in gone else None


class StoreFollower:
    """One listener; follow with one task at a time."""

    def __init__(self, find: Find, silence_s: float = SILENCE_S) -> None:
        """Prepares; connects when followed.

        Args:
            find: looks for stores, at the start and after every loss.
            silence_s: how long a line may be silent before it counts as dead.
        """
        self._find = find
        self._silence_s = silence_s
        self._store_id = ""
        self._flight = ""
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
            async with client.channel(address.control) as channel:
                stub = cards_pb2_grpc.CardStoreStub(channel)
                listing = await self._list_if_new(stub, address.control)
                if listing is not None:
                    yield listing
                request = cards_pb2.WatchRequest(from_revision=self.revision)
                call = stub.Watch(request)
                try:
                    while True:
                        async with asyncio.timeout(self._silence_s), client.typed_errors():
                            message = await call.read()
                        if not isinstance(message, cards_pb2.Change):  # The end of the stream.
                            raise errors.UnavailableError("the store ended the watch")
                        self.connected = True
                        yield self._take(message)
                finally:
                    call.cancel()
        except TimeoutError:
            _log.info("card store is silent", store=address.control, silence_s=self._silence_s)
        except errors.RevisionTooOldError as error:
            # As if it were another store: it is listed anew.
            self._store_id = ""
            _log.info("listing again", store=address.control, reason=str(error))
        except errors.SkillmeshError as error:
            _log.info("card store lost", store=address.control, reason=str(error))
        finally:
            self.connected = False

    async def _list_if_new(
        self, stub: cards_pb2_grpc.CardStoreStub, control: str
    ) -> Listing | None:
        status = await client.call(
            stub.GetStoreStatus, cards_pb2.GetStoreStatusRequest(), self._silence_s
        )
        same = (status.store_id, status.flight_address) == (self._store_id, self._flight)
        if same and status.revision >= self.revision:
            return None
        revision, cards = await _all_cards(stub)
        self._store_id, self.revision = status.store_id, revision
        self._flight = status.flight_address
        return Listing(cards, revision, control, status.flight_address)

    def _take(self, message: cards_pb2.Change) -> Change | None:
        kinds = {
            cards_pb2.CARD_PUBLISHED: ChangeKind.CARD_PUBLISHED,
            cards_pb2.ALIAS_MOVED: ChangeKind.ALIAS_MOVED,
            cards_pb2.CARD_DELETED: ChangeKind.CARD_DELETED,
            cards_pb2.CARD_REVOKED: ChangeKind.CARD_REVOKED,
            cards_pb2.KEY_REVOKED: ChangeKind.KEY_REVOKED,
        }
        kind = kinds.get(message.kind)
        # Heartbeats, kinds of a newer store, and what a store repeats are only signs of life.
        if kind is None or message.revision <= self.revision:
            return None
        self.revision = message.revision
        card = card_record(message.card) if message.HasField("card") else None
        return Change(kind, message.revision, card, message.alias, message.key_id)


async def _all_cards(stub: cards_pb2_grpc.CardStoreStub) -> tuple[int, tuple[CardRecord, ...]]:
    """The latest version of every card, and a revision that nothing of it is older than."""
    revision, token, found = 0, "", list[CardRecord]()
    while True:
        request = cards_pb2.ListCardsRequest(page_size=_PAGE_CARDS, page_token=token)
        response = await client.call(stub.ListCards, request, _LISTING_DEADLINE_S)
        # What changes while pages come is told again by the watch, from the first one's revision.
        revision = revision or response.revision
        found += [card_record(card) for card in response.cards]
        token = response.next_page_token
        if not token:
            return revision, tuple(found)


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
    )
