"""A moment by which an answer must be ready, whatever its parts take."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from shared import errors


class Deadline:
    """A moment in the event loop's time, or never."""

    def __init__(self, after_s: float | None) -> None:
        """Takes how long from now; None for ever."""
        self._at = None if after_s is None else asyncio.get_running_loop().time() + after_s

    @property
    def left_s(self) -> float | None:
        """Seconds until then, 0 where it has passed; None for ever."""
        if self._at is None:
            return None
        return max(0.0, self._at - asyncio.get_running_loop().time())

    @contextlib.asynccontextmanager
    async def limit(self) -> AsyncGenerator[None, None]:
        """Ends what goes on in the block at that moment.

        Raises:
            errors.DeadlineError: it came before the block's end.
        """
        timeout = asyncio.timeout_at(self._at)
        try:
            async with timeout:
                yield
        except TimeoutError as error:
            if not timeout.expired():
                raise
            raise errors.DeadlineError(
                "the answer was not ready before its deadline; allow more time or ask for less"
            ) from error
