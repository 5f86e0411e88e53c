"""Which of the served cards are in the model's memory: as many as a budget of bytes allows.

A card that is asked for comes in, and those that were used longest ago make room for it, unless
they are pinned or a request still uses them. Belongs to the event loop; the model is reached
through `Slots`. Knows nothing about requests, queues or where cards come from.
"""

from __future__ import annotations

import asyncio
import collections
import enum
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from shared import errors
from shared.cards import card as cards

Source = Callable[[], cards.LoRACard]
"""Gets a card, checked: from a file, or from the store. Blocks; called in a thread."""

Merge = Callable[[Sequence[cards.LoRACard]], cards.LoRACard]
"""Makes one card of several. Blocks; called in a thread."""

PATIENCE_S = 10.0
"""How long a card waits for requests to let go of others, by default."""
_log = structlog.get_logger(__name__)


class Slots(Protocol):
    """The model's memory for cards."""

    def cost_bytes(self, card: cards.LoRACard) -> int:
        """Memory that the card would hold."""
        ...

    async def apply(self, card: cards.LoRACard, key: str) -> None:
        """Brings a card in; returns when it can answer."""
        ...

    async def remove(self, key: str) -> None:
        """Takes a card out that no request uses."""
        ...


class _Place(enum.Enum):
    """Where a card's weights are."""

    OUT = "out"
    COMING = "coming"
    IN = "in"
    GOING = "going"


class _Known:
    """A card that can be had."""

    def __init__(self, source: Source | None, parts: Sequence[str] = ()) -> None:
        self.parts = frozenset(parts)
        """Keys of the cards that it is mixed of; nothing for a card of its own."""
        self.source = source
        """None for a card that can't be had again: it stays while it is served."""
        self.pinned = source is None
        self.private = False
        """Whether the node itself names it, and nobody else may choose it."""
        self.references = 0
        self.awaited = 0
        """Callers of `load` that wait for it."""
        self.bytes = 0
        """What it holds in memory, or is about to; 0 for one that is not there."""
        self.place = _Place.OUT
        self.coming: asyncio.Task[None] | None = None
        """What brings it in; there while it is on its way."""

    @property
    def is_forgettable(self) -> bool:
        """Whether nobody would notice if it had never been there."""
        return self.place is _Place.OUT and not self.references and not self.awaited

    @property
    def may_leave(self) -> bool:
        """Whether others may have its room."""
        return self.place is _Place.IN and not self.references and not self.pinned


class Residency:
    """The cards of one node, by key (`name@digest`)."""

    def __init__(self, slots: Slots, budget_bytes: int, patience_s: float = PATIENCE_S) -> None:
        """Begins without cards.

        Args:
            slots: of the model.
            budget_bytes: what the weights of all resident cards may hold together.
            patience_s: how long a card waits for requests to let go of others.
        """
        self._slots = slots
        self._patience_s = patience_s
        self._budget_bytes = budget_bytes
        self._cards: collections.OrderedDict[str, _Known] = collections.OrderedDict()
        """Used longest ago first."""
        self._served: list[str] = []
        """In the order of their coming."""
        self._changed = asyncio.Event()
        """Set whenever a card has lost its last reference, its pin or its place."""

    def served(self) -> list[str]:
        """Keys of the cards that requests may choose, in the order of their coming."""
        return [key for key in self._served if not self._cards[key].private]

    def resident(self) -> list[str]:
        """Keys of the cards in memory, used longest ago first; no mixtures, no private ones."""
        inside = [key for key, card in self._cards.items() if card.place is _Place.IN]
        return [k for k in inside if not (self._cards[k].parts or self._cards[k].private)]

    def pinned(self) -> list[str]:
        """Those of them that stay there."""
        return [key for key in self.resident() if self._cards[key].pinned]

    def is_resident(self, key: str) -> bool:
        """Whether a card is in memory."""
        card = self._cards.get(key)
        return card is not None and card.place is _Place.IN

    def is_private(self, key: str) -> bool:
        """Whether it is known, and nobody's choice but the node's own."""
        return key in self._cards and self._cards[key].private

    @property
    def held_bytes(self) -> int:
        """What the resident cards hold, with those that are on their way in."""
        return sum(card.bytes for card in self._cards.values())

    def add(self, key: str, source: Source | None) -> None:
        """Makes a card known, for `load`; requests may choose it only after `serve`.

        Args:
            key: `name@digest`.
            source: gets the card, now and after each eviction; None for one that can't be had
                again: it is given to `load`, and pinned.
        """
        if key not in self._cards:
            self._cards[key] = _Known(source)

    def serve(self, key: str, private: bool = False) -> None:
        """Lets requests choose a card; if it is not in memory it comes in with the first one.

        Args:
            key: of a card that was added.
            private: it is not among those that `served` and `resident` tell.

        Raises:
            errors.NotFoundError: the card was never added.
        """
        self._find(key).private = private
        if key not in self._served:
            self._served.append(key)

    def mix(self, key: str, parts: Sequence[str], merge: Merge) -> None:
        """Makes a mixture of served cards known; requests may choose it while all of them are.

        It holds memory as any card does, and is forgotten once that goes to others.

        Args:
            key: of the mixture.
            parts: keys of the cards.
            merge: makes one card of them, in the same order; called in a thread.

        Raises:
            errors.NotFoundError: a card is not served.
            errors.PreconditionError: one can't be had again.
        """
        unused = [k for k, card in self._cards.items() if card.parts and card.is_forgettable]
        for gone in unused:
            del self._cards[gone]
        sources = []
        for part in parts:
            if part not in self._served:
                raise self._unserved(part)
            sources.append(_required(part, self._cards[part].source))
        if key not in self._cards:
            self._cards[key] = _Known(lambda: merge([get() for get in sources]), parts)

    def pin(self, key: str, pinned: bool = True) -> None:
        """Keeps a card in memory once it is there, or lets it go when room is needed.

        Raises:
            errors.NotFoundError: the card is not served.
            errors.PreconditionError: it has no source, so that it could not come back.
        """
        card = self._find(key)
        if not pinned and card.source is None:
            raise errors.PreconditionError(
                f"card {key} was given as an object and could not come back: remove it instead"
            )
        card.pinned = pinned
        self._changed.set()

    async def let_go(self, key: str) -> None:
        """Lets a pinned card leave memory, at once where nobody uses it; it stays served.

        Raises:
            errors.NotFoundError: the card is not served.
            errors.PreconditionError: it has no source, so that it could not come back.
        """
        self.pin(key, pinned=False)
        card = self._cards[key]
        if card.may_leave and not card.awaited:
            await self._evict(key, card)

    def hold(self, key: str) -> Callable[[], None]:
        """Keeps a card from leaving until what is returned is called, in the event loop.

        Raises:
            errors.NotFoundError: the card is not served.
        """
        known = self._cards.get(key)
        mixed = known is not None and known.parts and known.parts <= set(self._served)
        if key not in self._served and not mixed:
            raise self._unserved(key)
        card = self._cards[key]
        card.references += 1
        self._cards.move_to_end(key)

        def release() -> None:
            card.references -= 1
            if not card.references:
                self._changed.set()

        return release

    async def load(self, key: str, given: cards.LoRACard | None = None, evict: bool = True) -> None:
        """Brings a card into memory; nothing happens if it is there.

        Args:
            key: of a card that was added.
            given: the card, where the caller has it at hand.
            evict: whether others may be sent away for it; if not, and there is no room, it stays
                outside until a request chooses it.

        Raises:
            errors.NotFoundError: the card was never added.
            errors.CapacityError: the budget has no room for it beside the pinned cards.
            errors.OverloadedError: requests kept using the others all the time that it waited.
            errors.SkillmeshError: it could not be had, or does not fit the model.
        """
        card = self._find(key)
        card.awaited += 1
        try:
            while card.place is not _Place.IN:
                if card.place is _Place.GOING:
                    await self._change()
                    continue
                if card.place is _Place.OUT:
                    card.place = _Place.COMING
                    card.coming = asyncio.create_task(self._bring(key, card, given, evict))
                    card.coming.add_done_callback(_heard)
                assert card.coming is not None
                # Shielded: whoever gives up waiting can't take back what others wait for, too.
                await asyncio.shield(card.coming)
                if not evict:
                    return
        finally:
            card.awaited -= 1
            self._changed.set()

    def unserve(self, key: str) -> None:
        """Lets no further request choose a card; silent if none may."""
        if key in self._served:
            self._served.remove(key)

    async def remove(self, key: str) -> None:
        """Serves a card no longer; returns when no request uses it and others may have its room.

        Its mixtures go with it. Whoever serves the card again in the meantime keeps it.
        """
        self.unserve(key)
        for mixed in [k for k, card in self._cards.items() if key in card.parts]:
            await self.remove(mixed)
        card = self._cards.get(key)
        while card is not None and self._cards.get(key) is card and key not in self._served:
            is_used = card.references or card.awaited
            if is_used or card.place in (_Place.COMING, _Place.GOING):
                await self._change()
            elif card.place is _Place.IN:
                await self._evict(key, card)
            else:
                del self._cards[key]

    async def close(self) -> None:
        """Gives up what is on its way in."""
        coming = [card.coming for card in self._cards.values() if card.coming is not None]
        for task in coming:
            task.cancel()
        await asyncio.gather(*coming, return_exceptions=True)

    def _unserved(self, key: str) -> errors.NotFoundError:
        return errors.NotFoundError(
            f"card {key} is not served by this node; it serves {self.served()[:8]}"
        )

    def _find(self, key: str) -> _Known:
        card = self._cards.get(key)
        if card is None:
            raise errors.NotFoundError(f"card {key} is not served by this node")
        return card

    async def _bring(
        self, key: str, card: _Known, given: cards.LoRACard | None, evict: bool
    ) -> None:
        try:
            found = given if given else await asyncio.to_thread(_required(key, card.source))
            needed = self._slots.cost_bytes(found)
            if not evict and self.held_bytes + needed > self._budget_bytes:
                return
            await self._make_room(key, needed)
            # Nothing is awaited since there was room.
            card.bytes = needed
            await self._slots.apply(found, key)
            card.place = _Place.IN
        finally:
            card.coming = None
            if card.place is not _Place.IN:
                card.place, card.bytes = _Place.OUT, 0
            self._changed.set()

    async def _make_room(self, key: str, needed: int) -> None:
        give_up_at = asyncio.get_running_loop().time() + self._patience_s
        while self.held_bytes + needed > self._budget_bytes:
            pinned = sum(card.bytes for card in self._cards.values() if card.pinned)
            if needed + pinned > self._budget_bytes:
                raise errors.CapacityError(
                    f"card {key} needs {needed:,} bytes; of the {self._budget_bytes:,} that "
                    f"inference.card_memory_mib allows, pinned cards hold {pinned:,}: allow more"
                )
            victim = next((k for k, card in self._cards.items() if card.may_leave), None)
            if victim is not None:
                await self._evict(victim, self._cards[victim])
                continue
            try:
                async with asyncio.timeout_at(give_up_at):
                    await self._change()
            except TimeoutError:
                raise errors.OverloadedError(
                    f"card {key} found no room for {self._patience_s:g} s: running requests use "
                    "the cards that fill inference.card_memory_mib; ask again, or allow more"
                ) from None

    async def _evict(self, key: str, card: _Known) -> None:
        card.place = _Place.GOING
        try:
            await self._slots.remove(key)
        finally:
            card.place, card.bytes = _Place.OUT, 0
            self._changed.set()
        _log.debug("card left memory", card=key, held_bytes=self.held_bytes)

    async def _change(self) -> None:
        """Waits for the next one; to be called again until what is waited for is true."""
        self._changed.clear()
        await self._changed.wait()


def _required(key: str, source: Source | None) -> Source:
    if source is None:
        raise errors.PreconditionError(f"card {key} was not given and has no source")
    return source


def _heard(task: asyncio.Task[None]) -> None:
    """Takes note of a failure that nobody may be waiting for any more."""
    if not task.cancelled():
        task.exception()
