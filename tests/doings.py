"""How often a stand-in for a service was asked for something, and finished it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from shared import errors


class Gate:
    """Lets calls pass; once shut, holds them and tells that one has come."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self.reached = asyncio.Event()

    def shut(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    async def passed(self) -> None:
        self.reached.set()
        await self._open.wait()


class Doings:
    """How often something was asked for and finished, by its idempotency key."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.finished: Counter[str] = Counter()
        self.requests: list[Any] = []
        self.gate = Gate()
        self.error: errors.SkillmeshError | None = None
        self._stored: dict[str, Any] = {}

    async def once(self, key: str, request: Any, work: Callable[[], Any]) -> Any:
        self.asked[key] += 1
        self.requests.append(request)
        await self.gate.passed()
        if self.error is not None:
            raise self.error
        if key not in self._stored:
            self._stored[key] = work()
            self.finished[key] += 1
        return self._stored[key]
