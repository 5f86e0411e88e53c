"""Holds a model where a test wants it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import torch

from services.inference import engine as engines

T = TypeVar("T")


class Gate:
    """Holds the model before its forward pass until opened; tells how often it was reached."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.reached = threading.Semaphore(0)
        self._passes = threading.Semaphore(0)
        self.calls = 0
        self._handle = model.register_forward_pre_hook(self._hold)

    def _hold(self, module: torch.nn.Module, arguments: object) -> None:
        self.calls += 1
        self.reached.release()
        assert self._passes.acquire(timeout=30)

    async def until_reached(self) -> None:
        assert await asyncio.to_thread(self.reached.acquire, timeout=30)

    def let(self, passes: int) -> None:
        self._passes.release(passes)

    def open(self) -> None:
        self._handle.remove()
        self._passes.release(10_000)


async def begun(gate: Gate, pieces: AsyncIterator[T]) -> T:
    """The first piece of an answer, whose model is held again behind it."""
    first = asyncio.ensure_future(anext(pieces))
    await gate.until_reached()
    while not first.done():
        gate.let(1)
        await gate.until_reached()
    return await first


async def until_under_way(gate: Gate, engine: engines.ArrowEngine, requests: int) -> None:
    """Lets the model go on until it is at work on so many requests together."""
    while not engine.waiting:
        await asyncio.sleep(0.001)
    while engine.load.running < requests:
        gate.let(1)
        await gate.until_reached()


async def during(gate: Gate, engine: engines.ArrowEngine, work: Coroutine[Any, Any, T]) -> T:
    """Does some work in the middle of an answer, however slow it is.

    The answer goes on, a token at a time, only while the work waits for the model's thread.
    """
    task = asyncio.ensure_future(work)
    while not task.done():
        if engine._worker._urgent:
            gate.let(1)
            await gate.until_reached()
        await asyncio.sleep(0.001)
    return await task
