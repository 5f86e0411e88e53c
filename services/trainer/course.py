"""One training from its first step to its last: watched, saved, resumed, cancelled.

Knows nothing about what is learned: facts and code are trained alike.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import Protocol

from services.trainer import backends, checkpoint, loop
from services.trainer import pace as paces
from shared.cards import card as cards
from shared.lora import tensors


class OnProgress(Protocol):
    """Takes news of the work."""

    def __call__(self, share: float, detail: str, pace: paces.Pace | None = None) -> None:
        """Tells how far it is.

        Args:
            share: that is done, 0 to 1.
            detail: what is being done, for people.
            pace: of a training.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a training went."""

    steps: int
    final_loss: float
    trained_right: float
    """Share of training answers of which every token is predicted right."""
    seconds: float


class Cancelled(Exception):
    """The service is stopping; the last checkpoint stands."""


def trained(
    backend: backends.Backend,
    work: backends.Work,
    dtype: str,
    saved: checkpoint.Checkpoint,
    stop: threading.Event,
    on_progress: OnProgress,
) -> tuple[Outcome, dict[str, cards.ModuleWeights]]:
    """Trains, going on from what was saved, and reads the weights out of the model.

    Args:
        backend: computes it.
        work: what is trained on what.
        dtype: of the weights: float32, float16 or bfloat16.
        saved: its checkpoint; who takes note of the outcome removes it.
        stop: ends it at its next step.
        on_progress: told now and then.

    Returns:
        How it went, and A and B by path of the layer.

    Raises:
        Cancelled: `stop` was set.
        errors.InvalidInputError: a rank does not fit its layer.
        errors.ConfigError: the backend can't do that work.
    """
    with backend.open(work) as training:
        outcome = _run(training.loop, saved, stop, on_progress)
        return outcome, {
            path: tensors.weights_of(adapter, adapter.scale * adapter.rank, dtype)
            for path, adapter in training.adapters().items()
        }


def _run(
    training: loop.Loop,
    saved: checkpoint.Checkpoint,
    stop: threading.Event,
    on_progress: OnProgress,
) -> Outcome:
    state = saved.load()
    seconds_before = 0.0
    if state is not None and training.fits(state):
        training.restore(state)
        seconds_before = saved.seconds
    clock, meter = checkpoint.Stopwatch(seconds_before), paces.Meter(time.monotonic)
    last = loop.Progress(0, 1, float("nan"), None, checked=False)
    for last in training.run():
        if stop.is_set():
            raise Cancelled
        pace = meter.pace(last)
        if last.checked:
            saved.save(training.state(), clock.seconds)
        if meter.due() or last.checked:
            right = "" if last.right is None else f", {last.right:.0%} right"
            on_progress(last.step / last.max_steps, f"{pace}{right}", pace)
    return Outcome(last.step, last.loss, last.right or 0.0, clock.seconds)
