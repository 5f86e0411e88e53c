"""The end of a process that serves: new requests are turned away, those under way may end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from shared import errors


class Drain:
    """Counts requests under way."""

    def __init__(self) -> None:
        """Begins open."""
        self.is_draining = False
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextlib.contextmanager
    def under_way(self) -> Iterator[None]:
        """Counts a request for as long as the block lasts.

        Raises:
            errors.UnavailableError: no more are taken.
        """
        if self.is_draining:
            raise errors.UnavailableError("This gateway is shutting down; ask again, or another")
        self._running += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def until_idle(self, limit_s: float) -> bool:
        """Takes no more requests, and waits until those under way have ended.

        Args:
            limit_s: no longer than this.

        Returns:
            Whether all have ended.
        """
        self.is_draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), limit_s)
        except TimeoutError:
            return False
        return True
