"""Keeps this node's cards as the card store has them, within moments of each publication.

Stands between `shared.rpc.watch` (what changed) and `ArrowEngine` (what can answer). For each name
there is at most one task, which works towards the wanted version until it is resident: news may
come faster than cards do, one card may fail, and neither holds up the others. A card that the store
itself has only on record is served without being fetched: it comes with its first question.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

import structlog

from services.inference import swaps
from services.inference.residency import Source
from shared import errors
from shared.cards import card as cards
from shared.cards import manifest as manifests
from shared.cards import signature
from shared.rpc import watch
from shared.telemetry import tracing

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 10.0
_FETCHES_AT_ONCE = 4
_log = structlog.get_logger(__name__)


class Engine(Protocol):
    """What takes in cards; `ArrowEngine` is one."""

    @property
    def fingerprint(self) -> str:
        """The base model's identity."""
        ...

    def served(self) -> list[str]:
        """Keys of the cards that requests may choose, in the order of their coming."""
        ...

    async def load_lora(
        self, card: cards.LoRACard, key: str, source: Source | None = None, evict: bool = True
    ) -> None:
        """Brings a card into memory and serves it."""
        ...

    def serve_lora(self, key: str, source: Source) -> None:
        """Serves a card that comes into memory with its first request."""
        ...

    def remove_lora(self, key: str) -> Awaitable[None]:
        """Serves a card no longer; what is returned ends once no request uses it."""
        ...


class Files(Protocol):
    """Where cards come from; `card_files.CardFiles` is one."""

    def card(self, digest: str, flight_address: str) -> cards.LoRACard:
        """The card of a digest; blocks."""


Bring = Callable[[str, str], Awaitable[None]]
"""Has the store at a control address fetch a card of a digest from its peers."""


class CardSubscriber:
    """Applies every listing and change until stopped."""

    def __init__(
        self,
        engine: Engine,
        follower: watch.StoreFollower,
        files: Files,
        trust: signature.Trust,
        bring: Bring,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """Takes the engine to feed, the follower of the store, and what it needs meanwhile.

        Args:
            engine: gets the cards.
            follower: tells what the store has.
            files: fetches cards.
            trust: looks at a card's signature whenever it is about to be loaded, and at those of
                served cards whenever a key was revoked or the cards were listed.
            bring: has the store fetch what it has only on record.
            clock_ms: Unix time in milliseconds.
        """
        self._engine = engine
        self._follower = follower
        self._files = files
        self._trust = trust
        self._bring_to_store = bring
        self._clock_ms = clock_ms
        self._flight_address = ""
        self.control = ""
        """`host:port` of the store's control plane; empty while none was found."""
        self.changed = asyncio.Event()
        """Set when what is served, or where the store is, may have changed; cleared by others."""
        self._wanted: dict[str, watch.CardRecord] = {}
        self._published: set[str] = set()
        """Names whose wanted version came as news: somebody waits for it, others make room."""
        self._came: dict[str, watch.CardRecord] = {}
        """By key: the records, with their signatures, by which the served cards came."""
        self._routes: dict[str, str] = {}
        """By key: the routes of those that have one."""
        self._pursuits: dict[str, _Pursuit] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        """Wait until cards have left behind their requests."""
        self._fetching = asyncio.Semaphore(_FETCHES_AT_ONCE)
        self.swapped = swaps.Swaps()
        """Those that came."""
        self._follow: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begins to follow; a store that can't be reached is joined later."""
        self._loop = asyncio.get_running_loop()
        self._follow = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stops following; the cards stay."""
        tasks = (self._follow, *(p.task for p in self._pursuits.values()), *self._leaving)
        running = [task for task in tasks if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    @property
    def swaps(self) -> list[swaps.SwapRecord]:
        """The latest swaps, newest last."""
        return self.swapped.latest()

    @property
    def revision(self) -> int:
        """The last revision followed; its card may still be on its way."""
        return self._follower.revision

    @property
    def connected(self) -> bool:
        """Whether the line to the store is alive."""
        return self._follower.connected

    def of_route(self, route: str) -> list[str]:
        """Keys of the served cards of a route, the last one committed to the store first."""
        served = self._engine.served()
        found = [key for key in served if self._routes.get(key) == route]
        return sorted(
            found, key=lambda key: (self._came[key].created_at_ms, served.index(key)), reverse=True
        )

    def tenants_of(self, key: str) -> tuple[str, ...] | None:
        """Whose a served card is; empty: everybody's; None while that is not noted."""
        record = self._came.get(key)
        return None if record is None else record.tenants

    async def apply(self, listing: watch.Listing) -> list[str]:
        """Applies a listing that was not heard from the follower.

        Returns:
            Once each of its cards was tried: keys of those that are served and were not before.
        """
        before = set(self._engine.served())
        self._want_exactly(listing)
        tried = [pursuit.tried.wait() for pursuit in self._pursuits.values()]
        await asyncio.gather(*tried)
        return [key for key in self._engine.served() if key not in before]

    async def _run(self) -> None:
        async with contextlib.aclosing(self._follower.follow()) as news_stream:
            async for news in news_stream:
                if isinstance(news, watch.Listing):
                    self._want_exactly(news)
                elif (card := news.makes_latest) is not None:
                    self._published.add(card.name)
                    self._want(card)
                elif (gone := news.retires) is not None:
                    self._retired(gone)
                elif news.kind is watch.ChangeKind.KEY_REVOKED:
                    self._distrust([news.key_id])

    def _want_exactly(self, listing: watch.Listing) -> None:
        self._flight_address, self.control = listing.flight, listing.control
        self.changed.set()
        self._distrust(listing.revoked_keys)
        served = {key.partition("@")[0] for key in self._engine.served()}
        for name in (served | set(self._wanted)) - {record.name for record in listing.cards}:
            self._wanted.pop(name, None)
            self._pursue(name)
        for record in listing.cards:
            self._want(record)
        _log.info("cards listed", cards=len(listing.cards), revision=listing.revision)

    def _want(self, record: watch.CardRecord) -> None:
        if record.base_fingerprint == self._engine.fingerprint:
            self._wanted[record.name] = record
        else:
            # An older version for this base is no longer what the store serves: it goes.
            self._wanted.pop(record.name, None)
            _log.info(
                "card skipped: it belongs to another base model",
                card=_key(record),
                card_base=record.base_fingerprint[:12],
                node_base=self._engine.fingerprint[:12],
            )
        self._pursue(record.name)

    def _retired(self, record: watch.CardRecord) -> None:
        """A card that must not be served any more goes now; another version is other news."""
        wanted = self._wanted.get(record.name)
        if wanted is not None and wanted.digest == record.digest:
            del self._wanted[record.name]
            self._pursue(record.name)
        # Not by the name's task, which may be busy with the next version.
        if _key(record) in self._engine.served():
            self._retire(_key(record))

    def _distrust(self, keys: Iterable[str]) -> None:
        """Takes note of revoked keys; what the keyring no longer vouches for goes now."""
        self._trust.revoke(keys)
        served = set(self._engine.served())
        self._came = {key: record for key, record in self._came.items() if key in served}
        self._routes = {key: route for key, route in self._routes.items() if key in served}
        self._drop_distrusted(self._came.values())

    def _drop_distrusted(self, records: Iterable[watch.CardRecord]) -> None:
        for record in self._trust.distrusted(records):
            _log.error("card is not trusted any more", card=_key(record))
            self._retired(record)

    def _pursue(self, name: str) -> None:
        """Has the task of a name look at what is wanted now."""
        if name in self._pursuits:
            self._pursuits[name].news.set()
        else:
            self._pursuits[name] = pursuit = _Pursuit()
            pursuit.task = asyncio.create_task(self._bring(name, pursuit))

    async def _bring(self, name: str, pursuit: _Pursuit) -> None:
        """Works until there is no news about one name that is not done."""
        news, pause_s = pursuit.news, _FIRST_PAUSE_S
        try:
            while news.is_set():
                news.clear()
                if await self._done(name):
                    pause_s = _FIRST_PAUSE_S
                    continue
                pursuit.tried.set()
                # News end the pause: the version that could not be had may be outdated.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await news.wait()
                news.set()
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        finally:
            pursuit.tried.set()
            del self._pursuits[name]

    async def _done(self, name: str) -> bool:
        """Whether the wanted version is in and the others out, or will never be."""
        record = self._wanted.get(name)
        try:
            if record is not None and _key(record) not in self._engine.served():
                if record.remote:
                    self._serve_unfetched(record)
                else:
                    await self._swap_in(record)
            if self._wanted.get(name) is not record:
                return True  # Overtaken by news, which the task looks at next.
            # Only now: until the new version is in, the old one answers.
            for key in self._engine.served():
                if key.partition("@")[0] == name and (record is None or key != _key(record)):
                    self._retire(key)
        except (errors.InvalidInputError, errors.PreconditionError) as error:
            _log.error("card refused; the node goes on without it", card=name, reason=str(error))
            return True
        except (errors.SkillmeshError, OSError) as error:
            _log.warning("card not here yet; trying again", card=name, reason=str(error))
            return False
        except Exception:
            # One card must not end the subscription, whatever is wrong with it.
            _log.exception("card not applied; trying again", card=name)
            return False
        return True

    def _retire(self, key: str) -> None:
        """Has a card leave behind its requests; the next version does not wait for them."""
        self._leaving.add(task := asyncio.create_task(_left(key, self._engine.remove_lora(key))))
        task.add_done_callback(self._leaving.discard)
        self.changed.set()

    def _serve_unfetched(self, record: watch.CardRecord) -> None:
        """Lets requests choose a card that even the store has only on record."""
        self._trust.verify(record)
        route = manifests.parse(record.manifest_json).route
        self._engine.serve_lora(_key(record), functools.partial(self._get, record))
        self._note(record, route)
        self.changed.set()
        _log.info("card served, and fetched when it is first asked", card=_key(record))

    async def _swap_in(self, record: watch.CardRecord) -> None:
        # The skill that a question caused comes in its trace; what was merely listed does not.
        evict = record.name in self._published
        traceparent = record.traceparent if evict else ""
        with tracing.resumed(traceparent), tracing.span("swap", card=_key(record)):
            await self._swapped_in(record, evict)

    async def _swapped_in(self, record: watch.CardRecord, evict: bool) -> None:
        began = time.perf_counter()
        get = functools.partial(self._get, record)
        async with self._fetching:
            with tracing.span("fetch"):
                card = await asyncio.to_thread(get)
        fetched = time.perf_counter()
        await self._engine.load_lora(card, _key(record), get, evict)
        self._published.discard(record.name)
        self._note(record, card.manifest.route)
        self._drop_distrusted([record])  # Its key may have been revoked while it came.
        self.changed.set()
        swapped = time.perf_counter()
        swap = swaps.SwapRecord(
            card=_key(record),
            fetch_ms=(fetched - began) * 1000,
            swap_ms=(swapped - fetched) * 1000,
            at_ms=self._clock_ms(),
        )
        self.swapped.add(swap)
        _log.info("card served", **dataclasses.asdict(swap))

    def _note(self, record: watch.CardRecord, route: str) -> None:
        self._came[_key(record)] = record
        if route:
            self._routes[_key(record)] = route

    def _get(self, record: watch.CardRecord) -> cards.LoRACard:
        """The card, from where the store is now: it may be long before it is needed again."""
        # The store has looked at it too; a node believes no store. The file's own digest is
        # checked when it is read, so that the signature holds for what is loaded.
        self._trust.verify(record)
        card = self._brought(record)
        # The signature is over the file: what a peer says of it decides who asks the card, until
        # it is here.
        if record.remote and card.manifest.route != manifests.parse(record.manifest_json).route:
            raise errors.UntrustedError(
                f"card {_key(record)}: its record names another route than its file, "
                f"{card.manifest.route or 'none'}; the store that it came from is not to be trusted"
            )
        return card

    def _brought(self, record: watch.CardRecord) -> cards.LoRACard:
        try:
            return self._files.card(record.digest, self._flight_address)
        except errors.NotFoundError:
            if not record.remote or self._loop is None:
                raise
        bringing = self._bring_to_store(self.control, record.digest)
        # This is a thread of its own; calls to the store belong to the loop.
        asyncio.run_coroutine_threadsafe(_awaited(bringing), self._loop).result()
        return self._files.card(record.digest, self._flight_address)


class _Pursuit:
    """The work towards the wanted version of one name."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.news.set()
        self.tried = asyncio.Event()
        """Set once what was wanted is there, or could not be had at the first attempt."""
        self.task: asyncio.Task[None] | None = None


async def _awaited(awaitable: Awaitable[None]) -> None:
    await awaitable


async def _left(key: str, removal: Awaitable[None]) -> None:
    try:
        await removal
        _log.info("card removed", card=key)
    except errors.SkillmeshError as error:
        _log.warning("card not removed", card=key, reason=str(error))


def _key(record: watch.CardRecord) -> str:
    return manifests.card_identity(record.name, record.digest)
