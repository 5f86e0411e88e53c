"""The active cards: a few are compared with every question, many lie on a shelf.

Says where the exact index ends and the approximate one begins. Knows nothing about probabilities.
One change at a time; questions are answered meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence

from services.router import index as indexes
from services.router import profile as profiles
from services.router import shelf as shelves
from services.router import space as spaces
from services.router import words
from shared import errors

EXACT_CARDS = 2_000
EXACT_EXAMPLES = 20_000
"""Of all cards together."""
_LEAST_SEEN, _MOST_SEARCHED = 8, 512
"""Of the cards on the shelf that lie near a question: how many an asker may see, and how many are
looked through for these."""
_LEAVES_SHELF = 0.5
"""Cards come back from the shelf when there are fewer than this share of the limits."""
_SAMPLE_AGES = 0.2
"""The index of the sample is made anew when more than this share of the sample is other cards."""


class Stock:
    """One version of each name."""

    def __init__(
        self, weigher: words.Words, space: spaces.Space, exact_cards: int = EXACT_CARDS
    ) -> None:
        """Starts without cards.

        Args:
            weigher: splits texts into weighed words.
            space: in which questions are compared besides.
            exact_cards: more cards than these lie on a shelf.
        """
        self._words = weigher
        self._exact_cards = exact_cards
        self.index = indexes.Index(space=space)
        """All cards, or a sample of those on the shelf; may be replaced by the same cards in
        another space."""
        self._found: dict[str, shelves.Found] = {}
        """By name, while there is no shelf."""
        self._shelf: shelves.Shelf | None = None
        self._sampled: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.index if self._shelf is None else self._shelf)

    def find(self, name: str) -> shelves.Found | None:
        """What is routable under a name."""
        return self._found.get(name) if self._shelf is None else self._shelf.find(name)

    def names(self) -> list[str]:
        """Of all cards."""
        return list(self._found) if self._shelf is None else self._shelf.names()

    async def add(self, made: Sequence[profiles.Profile], virtual: bool) -> None:
        """Adds cards, each in the place of any other version of its name."""
        if self._shelf is not None:
            await asyncio.to_thread(self._shelf.add, made, virtual)
            await self._resample(self._shelf)
        elif self._exceeds(made, 1.0):
            await self._fill(made, virtual)
        else:
            new = {p.card.name: shelves.Found(p.identity, virtual) for p in made}
            await self._change(made, self._found | new)

    async def remove(self, names: Collection[str]) -> None:
        """Forgets cards; an unknown name is fine."""
        if self._shelf is None:
            gone = set(names)
            kept = {name: found for name, found in self._found.items() if name not in gone}
            if len(kept) < len(self._found):
                await self._change((), kept)
            return
        await asyncio.to_thread(self._shelf.remove, names)
        if self._exceeds((), _LEAVES_SHELF):
            await self._resample(self._shelf)
        else:
            await self._clear(self._shelf)

    @property
    def shortlist(self) -> Callable[[profiles.Question], list[profiles.Profile]] | None:
        """Finds the cards that a question is compared with; None while that is all of them."""
        return None if self._shelf is None else self._shelf.shortlist

    async def near(
        self,
        question: profiles.Question,
        least: int,
        hidden: profiles.Hidden = profiles.nothing,
    ) -> indexes.Index:
        """The cards that are compared with a question: all, or those worth it.

        Args:
            question: with its vector and words.
            least: how many are needed.
            hidden: tells the cards that don't count as any; more are looked for in their place.
        """
        index, shelf = self.index, self._shelf
        if shelf is None:
            return index

        def few() -> indexes.Index:
            wanted, needed = least, max(least, _LEAST_SEEN)
            while True:
                found, skipped = shelf.shortlist(question, wanted), hidden()
                seen = sum(one.identity not in skipped for one in found)
                is_all = len(found) < wanted or len(found) >= _MOST_SEARCHED
                if not skipped or seen >= needed or is_all:
                    return indexes.Index(found, index.space, False, index)
                wanted = 4 * len(found)

        return await asyncio.to_thread(few)

    def nearest(self, vector: profiles.Vectors, count: int) -> list[str]:
        """Names of the cards whose texts lie nearest, that one first, as the shelf finds them.

        Raises:
            errors.InternalError: there is no shelf; exact search compares with every card.
        """
        if self._shelf is None:
            raise errors.InternalError("the cards do not lie on a shelf; they are few")
        return self._shelf.nearest(vector, count)

    def _exceeds(self, more: Sequence[profiles.Profile], share: float) -> bool:
        """Whether the cards with these, each in the place of another version, are too many."""
        cards, examples = len(more), sum(len(p.examples) for p in more)
        if self._shelf is not None:
            cards, examples = cards + len(self._shelf), examples + self._shelf.examples
        else:
            replaced = {p.card.name for p in more}
            stay = [p for p in self.index.profiles if p.card.name not in replaced]
            cards += len(stay)
            examples += sum(len(p.examples) for p in stay)
        return cards > share * self._exact_cards or examples > share * EXACT_EXAMPLES

    async def _change(
        self, made: Sequence[profiles.Profile], found: dict[str, shelves.Found]
    ) -> None:
        """Adds some cards; of the others those stay that are to be found."""
        added = {p.card.name for p in made}
        stays = {one.identity for name, one in found.items() if name not in added}
        gone = [p.identity for p in self.index.profiles if p.identity not in stays]
        self.index = await self._derive(lambda index: index.changed(made, gone))
        self._found = found

    async def _fill(self, made: Sequence[profiles.Profile], virtual: bool) -> None:
        """Lays all cards and some more on a shelf."""
        shelf = shelves.Shelf(len(made[0].centroid), self._words)
        for kind in (False, True):
            kept = [p for p in self.index.profiles if self._found[p.card.name].virtual is kind]
            await asyncio.to_thread(shelf.add, kept, kind)
        await asyncio.to_thread(shelf.add, made, virtual)
        sample = await asyncio.to_thread(shelf.load, shelf.sample)
        self.index = await self._derive(lambda index: indexes.Index(sample, index.space, False))
        self._shelf, self._found, self._sampled = shelf, {}, frozenset(shelf.sample)

    async def _clear(self, shelf: shelves.Shelf) -> None:
        """Takes all cards from the shelf."""
        every = await asyncio.to_thread(shelf.load, shelf.numbers())
        self.index = await self._derive(lambda index: indexes.Index(every, index.space))
        self._found = {name: one for name in shelf.names() if (one := shelf.find(name))}
        self._shelf = None

    async def _resample(self, shelf: shelves.Shelf) -> None:
        """Follows the sample, once it has changed enough to matter."""
        sample = frozenset(shelf.sample)
        if len(sample - self._sampled) <= _SAMPLE_AGES * len(sample):
            return
        found = await asyncio.to_thread(shelf.load, sample)
        self.index = await self._derive(lambda index: indexes.Index(found, index.space, False))
        self._sampled = sample

    async def _derive(self, make: Callable[[indexes.Index], indexes.Index]) -> indexes.Index:
        """Another index made from the present one, off the event loop."""
        while True:
            index = self.index
            made = await asyncio.to_thread(make, index)
            if self.index is index:  # Else it was put into another space meanwhile.
                return made
