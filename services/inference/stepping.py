"""Long work on the model, such as learning, in steps between the tokens of running answers.

Each step is a job in the model's thread, behind the requests that wait, so that an answer waits for
one step at most. A step finds the bare model, and the answers find their cards again behind it.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import torch

from services.inference import generations
from services.inference import worker as workers
from shared import errors
from shared.lora import manager as managers

T = TypeVar("T")
Make = Callable[[Any, managers.LoRAManager], Generator[None, None, T]]
"""Makes work of the model and the manager of its cards."""
_FULL_S = 0.2
"""Until a full queue is asked again."""


class Stepper:
    """Of one model."""

    def __init__(
        self,
        model: Any,
        manager: managers.LoRAManager,
        worker: workers.Worker,
        answers: generations.Generations,
    ) -> None:
        """Takes the model with its cards, its thread and the answers that are under way in it."""
        self._model, self._manager = model, manager
        self._worker, self._answers = worker, answers

    async def run(self, make: Make[T]) -> T:
        """Runs work to its end and returns its result.

        While answers are under way it rests after each step for as long as that took.

        Args:
            make: gives the work, which yields after each step; at each yield the model answers as
                it did before. It runs with gradients enabled and no card active, and is closed in
                the model's thread if whoever waits gives up.

        Raises:
            errors.UnavailableError: the node is stopping.
            Exception: what the work raised.
        """
        work = make(self._model, self._manager)
        try:
            while True:
                try:
                    job = self._worker.submit(functools.partial(self._step, work))
                except errors.OverloadedError:
                    # Those who wait for answers go first.
                    await asyncio.sleep(_FULL_S)
                    continue
                ended, result, took_s = await asyncio.wrap_future(job)
                if ended:
                    return result[0]
                await asyncio.sleep(took_s if self._answers.busy else 0.0)
        except BaseException:
            await self._closed(work)
            raise

    def _step(self, work: Generator[None, None, T]) -> tuple[bool, list[T], float]:
        """Whether it ended, what it returned, and how long it took in seconds."""
        began = time.perf_counter()
        self._manager.activate(None)
        try:
            with torch.enable_grad():
                next(work)
        except StopIteration as end:
            return True, [end.value], 0.0
        finally:
            self._manager.activate(None)
        return False, [], time.perf_counter() - began

    async def _closed(self, work: Generator[None, None, T]) -> None:
        try:
            closing = self._worker.submit_urgent(work.close)
        except errors.UnavailableError:
            return  # The thread ends, and the model with it.
        await asyncio.shield(asyncio.wrap_future(closing))
