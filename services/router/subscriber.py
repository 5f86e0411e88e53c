"""Keeps the router's cards as the card store has them.

Stands between `shared.rpc.watch` (what changed) and `LoRARouter` (what is routable). Knows nothing
about gRPC or about reconnecting.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Iterable, Sequence

import structlog

from services.router import profile
from services.router import router as routers
from shared import errors
from shared.cards import manifest as manifests
from shared.cards import signature
from shared.rpc import watch
from shared.security import callers

_PAUSE_S = 0.5
_ATTEMPTS = 5
"""One card that can't be embedded must not keep the later ones away for ever."""
_RECORDS_AT_A_TIME = 1_000
_MOST_ASKERS = 1_000
"""Sets of tenants of which is kept what is hidden from them."""
_log = structlog.get_logger(__name__)


class CardSubscriber:
    """Applies every listing and change until stopped."""

    def __init__(
        self, router: routers.LoRARouter, follower: watch.StoreFollower, trust: signature.Trust
    ) -> None:
        """Takes the router to feed, the follower it feeds from, and who looks at signatures."""
        self._router = router
        self._trust = trust
        self._came: dict[str, watch.CardRecord] = {}
        """By identity: the records, with their signatures, by which routable cards came."""
        self._owned: dict[str, tuple[str, ...]] = {}
        """Whose the cards of these are that are not everybody's."""
        self._hidden: dict[frozenset[str], frozenset[str]] = {}
        """What `hidden_from` found since these changed."""
        self._follower = follower
        self._task: asyncio.Task[None] | None = None
        self.revision = 0
        """The last revision that the router's cards reflect."""
        self.listed = False
        """Whether the store's cards were registered since the start."""

    @property
    def connected(self) -> bool:
        """Whether the line to the store is alive."""
        return self._follower.connected

    def start(self) -> None:
        """Begins to follow; a store that can't be reached is joined later."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stops following; the cards stay."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def domain(self, card: str) -> str:
        """The domain of a routable card, by its identity; empty where it is not known."""
        record = self._came.get(card)
        return "" if record is None else record.domain

    def hidden_from(self, tenants: callers.Tenants) -> frozenset[str]:
        """Identities of the cards that are none to whoever has these tenants."""
        if tenants is None:
            return frozenset()
        kept, owned = self._hidden, self._owned.items()
        if (known := kept.get(tenants)) is not None:
            return known
        if len(kept) >= _MOST_ASKERS:
            kept.clear()
        found = frozenset(card for card, owners in owned if not callers.may_see(tenants, owners))
        kept[tenants] = found
        return found

    async def _run(self) -> None:
        async with contextlib.aclosing(self._follower.follow()) as news_stream:
            async for news in news_stream:
                for _ in range(_ATTEMPTS):
                    if await self._applied(news):
                        break
                    await asyncio.sleep(_PAUSE_S)
                self.revision = news.revision
                self.listed = self.listed or isinstance(news, watch.Listing)

    async def _applied(self, news: watch.Listing | watch.Change) -> bool:
        """Whether a piece of news was applied; otherwise it is worth another attempt."""
        try:
            if isinstance(news, watch.Listing):
                await self._distrust(news.revoked_keys)
                await self._replace_all(news.cards)
            elif news.kind is watch.ChangeKind.KEY_REVOKED:
                await self._distrust([news.key_id])
            elif (gone := news.retires) is not None:
                # What `latest` points to instead is news of its own.
                await self._router.unregister_version(gone.name, gone.digest)
            elif (card := news.makes_latest) is not None:
                await self._register([card])
        except Exception:
            # One failure must not end the subscription.
            _log.exception("news of the store not applied", revision=news.revision)
            return False
        return True

    async def _replace_all(self, records: Sequence[watch.CardRecord]) -> None:
        # First what has gone: a card that can't be embedded must not keep it here.
        await self._router.retain({record.name for record in records})
        await self._register(records)
        _log.info("cards listed", cards=len(records))

    async def _register(self, records: Sequence[watch.CardRecord]) -> None:
        """Makes records routable; what fails is raised once the others are in."""
        failed: errors.SkillmeshError | None = None
        for start in range(0, len(records), _RECORDS_AT_A_TIME):
            some = records[start : start + _RECORDS_AT_A_TIME]
            trusted = await asyncio.to_thread(self._trusted, some)
            # Of a million cards no more is held than a second look at their signatures needs.
            came = {
                manifests.card_identity(r.name, r.digest): dataclasses.replace(r, manifest_json="")
                for r in trusted
            }
            self._came |= came
            if owned := {key: record.tenants for key, record in came.items() if record.tenants}:
                self._note_owners(self._owned | owned)
            readable = await asyncio.to_thread(_readable, trusted)
            for record, manifest in readable:
                if manifest.route:
                    # An earlier version of the name may have been found by questions.
                    await self._router.unregister_card(record.name)
            for remote in (False, True):
                cards = [
                    profile.from_manifest(record.name, record.digest, manifest)
                    for record, manifest in readable
                    if record.remote is remote and not manifest.route
                ]
                try:
                    await self._router.register_cards(cards, virtual=remote)
                except (errors.InvalidInputError, errors.InternalError) as error:
                    failed = failed or error
        if failed is not None:
            raise failed

    def _note_owners(self, owned: dict[str, tuple[str, ...]]) -> None:
        self._owned, self._hidden = owned, {}

    def _trusted(self, records: Sequence[watch.CardRecord]) -> list[watch.CardRecord]:
        """Those whose signature holds: what no node serves must not be chosen."""
        found = []
        for record in records:
            try:
                self._trust.verify(record)
            except errors.UntrustedError as error:
                _log.error("card not routable", card=record.name, reason=str(error))
            else:
                found.append(record)
        return found

    async def _distrust(self, keys: Iterable[str]) -> None:
        """Takes note of revoked keys; what the keyring no longer vouches for is forgotten."""
        self._trust.revoke(keys)
        distrusted = await asyncio.to_thread(self._distrusted)
        self._note_owners({key: of for key, of in self._owned.items() if key in self._came})
        for record in distrusted:
            _log.error("card is not trusted any more", card=record.name, digest=record.digest)
            await self._router.unregister_version(record.name, record.digest)

    def _distrusted(self) -> list[watch.CardRecord]:
        self._came = {
            key: record
            for key, record in self._came.items()
            if self._router.is_active(record.name, record.digest)
        }
        return self._trust.distrusted(self._came.values())


def _readable(
    records: Iterable[watch.CardRecord],
) -> list[tuple[watch.CardRecord, manifests.Manifest]]:
    found = []
    for record in records:
        try:
            found.append((record, manifests.parse(record.manifest_json)))
        except errors.CardFormatError as error:
            # The store checked it; a card of a newer version is left to newer routers.
            _log.warning("card not routable", card=record.name, reason=str(error))
    return found
