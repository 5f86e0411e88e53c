"""How fast a training goes and how long it will take."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from services.trainer import loop

_TOLD_EVERY_S = 1.0


@dataclasses.dataclass(frozen=True)
class Pace:
    """A training as it is watched."""

    step: int
    loss: float
    tokens_per_s: float
    """Read with gradients, padding not counted, since this process began."""
    left_s: float
    """Until the last step, at the pace so far; it may end earlier."""

    def __str__(self) -> str:
        """For people."""
        return (
            f"step {self.step}, loss {self.loss:.3f}, {self.tokens_per_s:,.0f} tokens/s, "
            f"{self.left_s:.0f} s left"
        )


class Meter:
    """Watches the steps of one training."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begins now.

        Args:
            clock: seconds, monotonic.
        """
        self._clock = clock
        self._started = self._told = clock()
        self._first_step: int | None = None

    def pace(self, progress: loop.Progress) -> Pace:
        """At a step, of which every one must be shown."""
        if self._first_step is None:
            # A resumed training shows first where it stands, without having read anything.
            self._first_step = progress.step - (1 if progress.tokens else 0)
        seconds = max(self._clock() - self._started, 1e-9)
        steps = progress.step - self._first_step
        left = (progress.max_steps - progress.step) * seconds / steps if steps else 0.0
        return Pace(progress.step, progress.loss, progress.tokens / seconds, left)

    def due(self) -> bool:
        """Whether it was told long ago; asking counts as telling."""
        if self._clock() - self._told < _TOLD_EVERY_S:
            return False
        self._told = self._clock()
        return True
