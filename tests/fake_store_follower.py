"""News of a card store without a store: what a test says is what a subscriber hears."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import AsyncGenerator

from shared.cards import card as cards
from shared.cards import format as formats
from shared.rpc import watch


class FakeFollower(watch.StoreFollower):
    """Hands out what `tell` is given."""

    def __init__(self) -> None:
        super().__init__(self._nowhere)
        self._news: asyncio.Queue[watch.Listing | watch.Change] = asyncio.Queue()

    async def _nowhere(self) -> list[object]:  # type: ignore[override]
        return []

    def list(self, *records: watch.CardRecord, revoked_keys: tuple[str, ...] = ()) -> None:
        found = watch.Listing(
            records, self._next(), "control:1", "flight:1", revoked_keys=revoked_keys
        )
        self._news.put_nowait(found)

    def publish(self, record: watch.CardRecord) -> None:
        kind = watch.ChangeKind.CARD_PUBLISHED
        self._news.put_nowait(watch.Change(kind, self._next(), record, ""))

    def move(self, record: watch.CardRecord, alias: str) -> None:
        kind = watch.ChangeKind.ALIAS_MOVED
        self._news.put_nowait(watch.Change(kind, self._next(), record, alias))

    def withdraw(self, record: watch.CardRecord, revoked: bool = True) -> None:
        state = watch.CardState.REVOKED if revoked else watch.CardState.DELETED
        kind = watch.ChangeKind.CARD_REVOKED if revoked else watch.ChangeKind.CARD_DELETED
        gone = dataclasses.replace(record, state=state, aliases=())
        self._news.put_nowait(watch.Change(kind, self._next(), gone))

    def revoke_key(self, key_id: str) -> None:
        kind = watch.ChangeKind.KEY_REVOKED
        self._news.put_nowait(watch.Change(kind, self._next(), None, key_id=key_id))

    async def follow(self) -> AsyncGenerator[watch.Listing | watch.Change, None]:
        while True:
            yield await self._news.get()

    def _next(self) -> int:
        self.revision += 1
        return self.revision


class FakeFiles:
    """Cards by digest; `failures` are raised first, in their order."""

    def __init__(self) -> None:
        self.cards: dict[str, cards.LoRACard] = {}
        self.failures: dict[str, list[Exception]] = {}
        self.asked: list[str] = []

    def add(self, card: cards.LoRACard) -> watch.CardRecord:
        record = record_of(card)
        self.cards[record.digest] = card
        return record

    def card(self, digest: str, flight_address: str) -> cards.LoRACard:
        assert flight_address == "flight:1"
        self.asked.append(digest)
        if self.failures.get(digest):
            raise self.failures[digest].pop(0)
        return self.cards[digest]


def record_of(card: cards.LoRACard) -> watch.CardRecord:
    data, manifest = formats.LoRAFormat.to_bytes(card), card.manifest
    return watch.CardRecord(
        name=card.name,
        digest=hashlib.sha256(data).hexdigest(),
        version=manifest.version,
        domain=manifest.domain,
        description=manifest.description,
        base_fingerprint=manifest.base_model.fingerprint,
        size_bytes=len(data),
        created_at_ms=0,
        aliases=("latest",),
        manifest_json=manifest.to_json(),
    )
