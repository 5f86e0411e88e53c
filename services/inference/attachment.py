"""What an engine is attached to: a store alone, or a whole skillmesh; each once at most.

Behind `ArrowEngine`'s methods of the same names.
"""

from __future__ import annotations

import contextlib

from services.inference import evolution, federation, memories
from shared import errors
from shared import settings as config
from shared.rpc import watch


class Attachment:
    """Of one engine, until closed."""

    def __init__(self, engine: evolution.Engine) -> None:
        """Takes the engine, attached to nothing."""
        self._engine = engine
        self._stack = contextlib.AsyncExitStack()
        self._federation: federation.Federation | None = None
        self._is_evolving = False

    async def start_federation(
        self,
        settings: config.Settings,
        find_stores: watch.Find | None = None,
        silence_s: float = watch.SILENCE_S,
    ) -> federation.Federation:
        """Has the engine follow a store; see `federation.joined`.

        Raises:
            errors.PreconditionError: it does already.
        """
        if self._federation is not None:
            raise errors.PreconditionError("this engine follows a card store already")
        joining = federation.joined(self._engine, settings, find_stores, silence_s)
        self._federation = await self._stack.enter_async_context(joining)
        return self._federation

    async def enable_evolution(
        self,
        settings: config.Settings,
        find_stores: watch.Find | None = None,
        silence_s: float = watch.SILENCE_S,
        agents: memories.Memories | None = None,
    ) -> evolution.Evolution:
        """Has it ask a router, too; see `evolution.attached`.

        Raises:
            errors.PreconditionError: it does already.
        """
        if self._is_evolving:
            raise errors.PreconditionError("this engine is attached to a skillmesh already")
        found = self._federation or await self.start_federation(settings, find_stores, silence_s)
        evolving = evolution.attached(self._engine, settings, found, agents)
        result = await self._stack.enter_async_context(evolving)
        self._is_evolving = True
        return result

    async def sync(self) -> list[str]:
        """Lists the store now; see `federation.Federation.sync`.

        Raises:
            errors.PreconditionError: it follows no store.
            errors.UnavailableError: no store answers.
        """
        if self._federation is None:
            raise errors.PreconditionError(
                "this engine follows no card store yet: call start_federation first"
            )
        return await self._federation.sync()

    async def close(self) -> None:
        """Follows and asks no longer; the cards stay."""
        await self._stack.aclose()
