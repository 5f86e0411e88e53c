"""Completes code at a cursor, with the card of the code base where one is served.

No router is asked and nothing is learned from it: the task alone says which card it is. Knows
nothing of gRPC.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncGenerator
from typing import Protocol

from services.inference import answering, choosing, deadlines, generations, prompts
from services.inference import sampling as samplings
from shared import errors
from shared.cards import manifest as manifests
from shared.security import callers

LONGEST_PATH = 4_096
"""Characters, as systems have it."""


@dataclasses.dataclass(frozen=True)
class Completion:
    """What an editor asks of this node."""

    cursor: prompts.Cursor
    path: str = ""
    """Of the file; see `choosing.Choosing.specialist`."""
    model: str = ""
    """Empty, `auto` or `specialist_local`: the card of the code base, or the bare base where there
    is none; `base`; `name` or `name@digest` of a card."""
    max_new_tokens: int = 0
    """0 for the default of config.yaml."""
    tenants: callers.Tenants = None
    """Whose cards may complete it."""
    deadline_s: float | None = None
    """How long the caller waits; None for ever."""
    sampling: samplings.Sampling = samplings.GREEDY
    """How tokens are chosen, and where the text ends."""


class Engine(generations.Streams, choosing.Engine, Protocol):
    """What writes; `ArrowEngine` is one."""


class Completing:
    """Completes code with the best that this node has."""

    def __init__(self, engine: Engine, chosen: choosing.Choosing | None = None) -> None:
        """Takes the engine, and what finds its cards; by default none is of a code base."""
        self._engine = engine
        self._choosing = chosen or choosing.Choosing(engine)

    async def complete(self, asked: Completion) -> generations.Generation:
        """Completes as a whole; see `stream`."""
        pieces = self.stream(asked)
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                if piece.final is not None:
                    return piece.final
        raise errors.InternalError("a completion ended without its last piece")

    async def stream(self, asked: Completion) -> AsyncGenerator[generations.Piece, None]:
        """Completes piece by piece.

        Raises:
            errors.InvalidInputError: there is no text around the cursor, the path is too long, or
                the model's name malformed.
            errors.NotFoundError: the card that is named is not served.
            errors.SkillmeshError: see `ArrowEngine.stream`.
        """
        if not (asked.cursor.prefix or asked.cursor.suffix):
            raise errors.InvalidInputError(
                "prefix and suffix are both empty; send the text around the cursor"
            )
        if len(asked.path) > LONGEST_PATH:
            raise errors.InvalidInputError(
                f"path has {len(asked.path):,} characters, at most {LONGEST_PATH:,} are read; "
                "send a shorter one, or none"
            )
        deadline = deadlines.Deadline(asked.deadline_s)
        card = await self._card(asked, deadline)
        # Nothing is awaited between the choice of a card and the engine's check that it is there.
        pieces = self._engine.stream(
            asked.cursor, card, asked.max_new_tokens, deadline.left_s, asked.sampling
        )
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def _card(self, asked: Completion, deadline: deadlines.Deadline) -> str | None:
        if asked.model == answering.BASE:
            return None
        if asked.model in ("", answering.AUTO, manifests.SPECIALIST_LOCAL):
            return await self._choosing.specialist(asked.path, deadline.left_s, asked.tenants)
        return self._choosing.named(asked.model, asked.tenants)
