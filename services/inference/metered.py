"""`ArrowEngine` that tells how long answers take; knows nothing of where that is shown."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

from services.inference import engine, generations
from shared import settings as config
from shared.models import base as bases


@dataclasses.dataclass(frozen=True)
class Timing:
    """One answer that came to its end."""

    card: str | None
    """None for the bare base model."""
    prompt_tokens: int
    new_tokens: int
    first_s: float
    """Until its first piece, waiting included."""
    between_s: float | None
    """From one token to the next, on average; None where there are fewer than two."""


class MeteredEngine(engine.ArrowEngine):
    """Measures every stream, and so every answer."""

    def __init__(
        self,
        base: bases.BaseModel,
        settings: config.Inference,
        observe: Callable[[Timing], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Takes what `ArrowEngine` takes, and who is told.

        Args:
            base: the loaded base model.
            settings: threads, default length of answers, length of the queue.
            observe: takes each answer's times.
            clock: seconds, monotonic.
        """
        super().__init__(base, settings)
        self._observe, self._clock = observe, clock

    async def stream(self, *args: Any, **named: Any) -> AsyncGenerator[generations.Piece, None]:
        """As `ArrowEngine.stream`."""
        began, first = self._clock(), 0.0
        async with contextlib.aclosing(super().stream(*args, **named)) as pieces:
            async for piece in pieces:
                first = first or self._clock()
                if piece.final is not None:
                    self._observe(self._timing(piece.final, began, first))
                yield piece

    def _timing(self, final: generations.Generation, began: float, first: float) -> Timing:
        gaps = final.new_tokens - 1
        between_s = (self._clock() - first) / gaps if gaps > 0 else None
        return Timing(final.card, final.prompt_tokens, final.new_tokens, first - began, between_s)
