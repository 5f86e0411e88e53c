"""The model's memory for cards, reached through the model's thread; a `residency.Slots`."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

from services.inference import worker as workers
from shared.cards import card as cards
from shared.lora import manager as managers


class ModelSlots:
    """Of one model."""

    def __init__(self, manager: managers.LoRAManager, worker: workers.Worker) -> None:
        """Takes the manager of the model's cards and the thread that may call it."""
        self._manager, self._worker = manager, worker

    def cost_bytes(self, card: cards.LoRACard) -> int:
        """Memory that the card would hold."""
        return self._manager.cost_bytes(card)

    async def apply(self, card: cards.LoRACard, key: str) -> None:
        """Brings a card in; returns when it can answer."""
        await self._urgently(functools.partial(self._manager.apply_card, card, key))

    async def remove(self, key: str) -> None:
        """Takes a card out that no request uses."""
        await self._urgently(functools.partial(self._manager.remove_card, key))

    async def _urgently(self, work: Callable[[], None]) -> None:
        await asyncio.wrap_future(self._worker.submit_urgent(work))
