"""Cards on their way into memory, for those who wait for them, and out of it.

Stands between requests and `residency`. Knows nothing about the model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from services.inference import deadlines, residency
from shared import errors


class Traffic:
    """Of one node; belongs to the event loop."""

    def __init__(self, cards: residency.Residency, most_waiting: int) -> None:
        """Takes the cards, and how many requests may wait for theirs."""
        self._cards = cards
        self._most_waiting = most_waiting
        self._leaving: set[asyncio.Task[None]] = set()
        self.waiting = 0
        """Requests whose card is on its way."""

    async def close(self) -> None:
        """Gives up what is on its way, in either direction."""
        await self._cards.close()
        for removal in self._leaving:
            removal.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)

    async def bring(self, key: str, deadline_s: float | None = None) -> None:
        """Returns when a served card is in memory; at once if it is there.

        Raises:
            errors.NotFoundError: the card is not served.
            errors.OverloadedError: too many requests wait for their cards.
            errors.DeadlineError: it was not there in time.
            errors.SkillmeshError: it can't be had, or does not fit.
        """
        if self._cards.is_resident(key):
            return
        if self.waiting >= self._most_waiting:
            raise errors.OverloadedError(
                f"{self.waiting} requests wait for their cards, as many as inference.queue "
                "allows; ask again later or ask another node"
            )
        self.waiting += 1
        try:
            async with deadlines.Deadline(deadline_s).limit():
                await self._cards.load(key)
        finally:
            self.waiting -= 1

    async def keep(self, key: str, deadline_s: float | None = None) -> None:
        """Brings a served card into memory, to stay there.

        Raises:
            errors.SkillmeshError: see `bring`.
        """
        release = self._cards.hold(key)  # It must not leave again before it is pinned.
        try:
            await self.bring(key, deadline_s)
            self._cards.pin(key)
        finally:
            release()

    async def let_go(self, key: str) -> None:
        """Lets a pinned card leave memory; see `Residency.let_go`."""
        await self._shielded(self._cards.let_go(key))

    def remove_soon(self, key: str) -> asyncio.Future[None]:
        """Serves a card no longer; to be awaited until others may have its memory."""
        return self._shielded(self._cards.remove(key))

    def _shielded(self, leaving: Coroutine[None, None, None]) -> asyncio.Future[None]:
        # A task of its own: a card that is half out would be neither here nor there.
        self._leaving.add(task := asyncio.create_task(leaving))
        task.add_done_callback(self._leaving.discard)
        shielded = asyncio.shield(task)
        # Whoever waits is told; where nobody does, at the node's end, nothing is amiss.
        shielded.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return shielded
