"""Keeps this node's cards as the card store has them, within moments of each publication.

Stands between `shared.rpc.watch` (what changed) and `ArrowEngine` (what can answer). For each name
there is at most one task, which works towards the wanted version until it is resident: news may
come faster than cards do, one card may fail, and neither holds up the others.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import functools
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from services.inference.residency import Source
from shared import errors
from shared.cards import card as cards
from shared.cards import manifest as manifests
from shared.rpc import watch

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 10.0
_FETCHES_AT_ONCE = 4
_SWAPS_KEPT = 100
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

    def remove_lora(self, key: str) -> Awaitable[None]:
        """Serves a card no longer; what is returned ends once no request uses it."""
        ...


Verify = Callable[[watch.CardRecord], object]
"""Raises errors.UntrustedError for a card that must not be served."""


class Files(Protocol):
    """Where cards come from; `card_files.CardFiles` is one."""

    def card(self, digest: str, flight_address: str) -> cards.LoRACard:
        """The card of a digest; blocks."""


@dataclasses.dataclass(frozen=True)
class SwapRecord:
    """One card that came to be served."""

    card: str
    """`name@digest`."""
    fetch_ms: float
    """From the news to the card's file being here and checked."""
    swap_ms: float
    """From then until requests could choose it."""
    at_ms: int
    """Unix time."""


class CardSubscriber:
    """Applies every listing and change until stopped."""

    def __init__(
        self,
        engine: Engine,
        follower: watch.StoreFollower,
        files: Files,
        verify: Verify,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """Takes the engine to feed, the follower of the store, and what it needs meanwhile.

        Args:
            engine: gets the cards.
            follower: tells what the store has.
            files: fetches cards.
            verify: looks at a card's signature whenever it is about to be loaded.
            clock_ms: Unix time in milliseconds.
        """
        self._engine = engine
        self._follower = follower
        self._files = files
        self._verify = verify
        self._clock_ms = clock_ms
        self._flight_address = ""
        self._wanted: dict[str, watch.CardRecord] = {}
        self._published: set[str] = set()
        """Names whose wanted version came as news: somebody waits for it, others make room."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._news: dict[str, asyncio.Event] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        """Wait until cards have left behind their requests."""
        self._fetching = asyncio.Semaphore(_FETCHES_AT_ONCE)
        self._swaps: collections.deque[SwapRecord] = collections.deque(maxlen=_SWAPS_KEPT)
        self._follow: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to follow; a store that can't be reached is joined later."""
        self._follow = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stops following; the cards stay."""
        tasks = (self._follow, *self._tasks.values(), *self._leaving)
        running = [task for task in tasks if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    @property
    def swaps(self) -> list[SwapRecord]:
        """The latest swaps, newest last."""
        return list(self._swaps)

    @property
    def revision(self) -> int:
        """The last revision followed; its card may still be on its way."""
        return self._follower.revision

    @property
    def connected(self) -> bool:
        """Whether the line to the store is alive."""
        return self._follower.connected

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

    def _want_exactly(self, listing: watch.Listing) -> None:
        self._flight_address = listing.flight
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

    def _pursue(self, name: str) -> None:
        """Has the task of a name look at what is wanted now."""
        self._news.setdefault(name, asyncio.Event()).set()
        if name not in self._tasks:
            self._tasks[name] = asyncio.create_task(self._bring(name))

    async def _bring(self, name: str) -> None:
        """Works until there is no news about one name that is not done."""
        news, pause_s = self._news[name], _FIRST_PAUSE_S
        try:
            while news.is_set():
                news.clear()
                if await self._done(name):
                    pause_s = _FIRST_PAUSE_S
                    continue
                # News end the pause: the version that could not be had may be outdated.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await news.wait()
                news.set()
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        finally:
            del self._tasks[name], self._news[name]

    async def _done(self, name: str) -> bool:
        """Whether the wanted version is in and the others out, or will never be."""
        record = self._wanted.get(name)
        try:
            if record is not None and _key(record) not in self._engine.served():
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

    async def _swap_in(self, record: watch.CardRecord) -> None:
        began = time.perf_counter()
        get = functools.partial(self._get, record)
        async with self._fetching:
            card = await asyncio.to_thread(get)
        fetched = time.perf_counter()
        evict = record.name in self._published
        await self._engine.load_lora(card, _key(record), get, evict)
        self._published.discard(record.name)
        swapped = time.perf_counter()
        swap = SwapRecord(
            card=_key(record),
            fetch_ms=(fetched - began) * 1000,
            swap_ms=(swapped - fetched) * 1000,
            at_ms=self._clock_ms(),
        )
        self._swaps.append(swap)
        _log.info("card served", **dataclasses.asdict(swap))

    def _get(self, record: watch.CardRecord) -> cards.LoRACard:
        """The card, from where the store is now: it may be long before it is needed again."""
        # The store has looked at it too; a node believes no store. The file's own digest is
        # checked when it is read, so that the signature holds for what is loaded.
        self._verify(record)
        return self._files.card(record.digest, self._flight_address)


async def _left(key: str, removal: Awaitable[None]) -> None:
    try:
        await removal
        _log.info("card removed", card=key)
    except errors.SkillmeshError as error:
        _log.warning("card not removed", card=key, reason=str(error))


def _key(record: watch.CardRecord) -> str:
    return manifests.card_identity(record.name, record.digest)
