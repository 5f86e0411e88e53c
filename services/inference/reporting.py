"""Tells the store what this node serves, so that it can show who has which card.

Whenever that changes, and every few seconds, since a store forgets a node that is silent. Knows
nothing of protobuf.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from services.inference import subscriber
from shared import errors
from shared.cards import manifest as manifests

EVERY_S = 10.0
Report = Callable[[str, str, str, int, list[str], str], Awaitable[None]]
"""Sends one report; see `store_client.report`."""
_log = structlog.get_logger(__name__)


class ResidencyReporter:
    """Reports until stopped."""

    def __init__(
        self,
        node_id: str,
        engine: subscriber.Engine,
        cards: subscriber.CardSubscriber,
        report: Report,
        every_s: float = EVERY_S,
    ) -> None:
        """Takes what is reported and how.

        Args:
            node_id: names this node.
            engine: says what is served.
            cards: says where the store is, which revision was applied, and when that changed.
            report: sends it.
            every_s: how often, where nothing changes.
        """
        self._node_id, self._engine, self._cards = node_id, engine, cards
        self._report, self._every_s = report, every_s
        self._address = ""
        self._task: asyncio.Task[None] | None = None

    def answers_at(self, address: str) -> None:
        """Takes `host:port` where requests reach this node, for the next report, soon."""
        self._address = address
        self._cards.changed.set()

    def start(self) -> None:
        """Begins to report."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stops; the store forgets this node soon."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await self._cards.changed.wait()
            # Before it is read: what changes during the report is in the next one.
            self._cards.changed.clear()
            if not self._cards.control:
                continue
            digests = [key.partition("@")[2] for key in self._engine.served()]
            try:
                await self._report(
                    self._cards.control,
                    self._node_id,
                    self._engine.fingerprint,
                    self._cards.revision,
                    [digest for digest in digests if manifests.is_digest(digest)],
                    self._address,
                )
            except errors.SkillmeshError as error:
                _log.debug("residency not reported", reason=str(error))
