"""Which trainer works on what: a free one, the same one while it lives, another when it is gone.

Counts the factory's own open calls; a trainer does one thing at a time. A trainer that stops
serving is waited for a while, since one that restarts goes on from its checkpoint, and then its
work goes to another. Knows nothing about gRPC.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import structlog

from services.factory import partners
from shared import errors

_log = structlog.get_logger(__name__)


class TrainerPool:
    """`partners.Trainers`: all trainers of the cluster."""

    def __init__(
        self,
        trainers: Mapping[str, partners.Trainer],
        is_serving: Callable[[str], Awaitable[bool]],
        grace_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes the trainers.

        Args:
            trainers: by address; of equally busy ones the first is taken.
            is_serving: asks the health of the one at an address.
            grace_s: how long one that does not serve is waited for.
            clock: seconds, monotonic.
        """
        self._trainers, self._is_serving = dict(trainers), is_serving
        self._grace_s, self._clock = grace_s, clock
        self._busy: collections.Counter[str] = collections.Counter()
        self._away_since: dict[str, float] = {}

    @contextlib.asynccontextmanager
    async def borrowed(self, before: str) -> AsyncIterator[tuple[str, partners.Trainer]]:
        """A trainer and its address, counted as busy meanwhile.

        Args:
            before: the address of the one that has begun the work already, which is taken unless
                it is lost; empty for none.

        Raises:
            errors.UnavailableError: none serves.
        """
        address = before
        if not before or await self.lost(before):
            address = await self._freest()
            if before:
                _log.warning("work goes to another trainer", gone=before, taken=address)
        self._busy[address] += 1
        try:
            yield address, self._trainers[address]
        finally:
            self._busy[address] -= 1

    async def lost(self, address: str) -> bool:
        """Whether the work of a trainer has to be done by another one.

        It has where it is not configured any more, or has not served for the time of grace while
        another one does.
        """
        if address not in self._trainers:
            return True
        if len(self._trainers) == 1:
            return False
        if await self._is_serving(address):
            self._away_since.pop(address, None)
            return False
        since = self._away_since.setdefault(address, self._clock())
        others = [other for other in self._trainers if other != address]
        return self._clock() - since >= self._grace_s and bool(await self._serving(others))

    async def _freest(self) -> str:
        # One alone is asked as it is: whoever calls it waits for it where need be.
        found = list(self._trainers)
        if len(found) > 1:
            found = await self._serving(found)
        if not found:
            raise errors.UnavailableError(f"no trainer serves of {', '.join(self._trainers)}")
        return min(found, key=lambda address: self._busy[address])

    async def _serving(self, addresses: list[str]) -> list[str]:
        alive = await asyncio.gather(*map(self._is_serving, addresses))
        return [address for address, serves in zip(addresses, alive, strict=True) if serves]
