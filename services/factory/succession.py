"""Several factories on one database: who lives, who takes over what another one left, who leads.

A workflow belongs to the factory that began it until that one is gone; then any other one goes on
with it where it was. A factory that loses the database lets go of its workflows before anybody
could take them over, as far as it can know. Knows nothing about tasks.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

import structlog

from services.factory import presence
from shared import errors

T = TypeVar("T")
EVERY_S = 1.0
_log = structlog.get_logger(__name__)


class Workflows(Protocol):
    """What is run; `durable.Runtime` is it."""

    async def owners(self) -> set[str]:
        """The factories that have begun what is under way."""

    async def take_over(self, names: Iterable[str]) -> None:
        """Puts what these have begun back into the queue."""

    async def stop_cancelled(self) -> None:
        """Stops what runs here and was cancelled elsewhere."""

    async def let_go(self) -> None:
        """Stops what runs here, where it is."""


class Succession:
    """Looks after that until stopped."""

    def __init__(self, here: presence.Presence, workflows: Workflows) -> None:
        """Takes the presence of this factory, and what runs the workflows."""
        self._here, self._workflows = here, workflows
        # One thread of its own: one connection, and DBOS takes the loop's executor down.
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="presence")
        self._lost = False
        self.leads = False
        """Whether this factory does what one alone should do."""

    async def begin(self) -> None:
        """Says that this factory lives; before it begins any workflow.

        Raises:
            errors.UnavailableError: the database is away.
        """
        await self._off_loop(self._here.hold)
        _log.info("factory begins", name=self._here.name)

    async def run_for_ever(self, every_s: float = EVERY_S) -> None:
        """Looks every so often."""
        while True:
            try:
                await self.look()
            except Exception:
                # A database that is away for a moment must not end it.
                _log.exception("other factories not looked after")
            await asyncio.sleep(every_s)

    async def look(self) -> None:
        """Looks once."""
        try:
            held = await self._off_loop(self._here.hold)
        except errors.UnavailableError as error:
            self.leads = False
            if not self._lost:
                self._lost = True
                _log.error("database lost; its workflows wait", reason=str(error))
                await self._workflows.let_go()
            return
        if not held or self._lost:
            # What stopped here may have gone to another one meanwhile: this takes the rest.
            await self._workflows.let_go()
            await self._workflows.take_over([self._here.name])
            self._lost = False
        self.leads = await self._off_loop(self._here.lead)
        owners = await self._workflows.owners()
        gone = await self._off_loop(lambda: self._here.gone(owners))
        if gone:
            _log.warning("factory gone; its workflows are taken over", gone=gone)
            await self._workflows.take_over(gone)
        await self._workflows.stop_cancelled()

    async def close(self) -> None:
        """Leaves; what was begun here goes to another factory."""
        self.leads = False
        await self._off_loop(self._here.close)
        self._thread.shutdown()

    async def _off_loop(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
