"""Proves served cards again, and rolls back those that have become worse.

A card's weights never change, but what is around it does: other cards take its questions, the base
model or a library is another one, bytes rot. A card whose figures are below its recorded table is
replaced by the version before, unless that one has become worse, too. A first version stays: it
answers some of its questions, its deletion could not be taken back, and people are told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from services.factory import board, partners, published
from shared import errors, learning_settings
from shared.rpc import client

_log = structlog.get_logger(__name__)
_EVERY_S = 60.0
_PATIENCE_S = 120.0
"""For services that are away; the card is due again a minute later."""
_HOUR_MS = 3_600_000
_SOONER = 24
"""Users who call answers wrong have a card proved so many times as often at most."""


class Rechecker:
    """Goes through the cards that this factory published, one at a time."""

    def __init__(
        self,
        kept: board.TaskBoard,
        others: partners.Partners,
        settings: learning_settings.Recheck,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        """Takes what it works with.

        Args:
            kept: tasks and published cards.
            others: the trainers that prove and the store that serves.
            settings: how often, and how much worse is too much.
            patience_s: how long a service that is away is waited for.
        """
        self._board, self._others, self._settings = kept, others, settings
        self._patience_s = patience_s

    async def run_for_ever(
        self, every_s: float = _EVERY_S, may: Callable[[], bool] = lambda: True
    ) -> None:
        """Looks now and then which cards are due.

        Args:
            every_s: how often.
            may: whether this factory does it; of several one is enough.
        """
        while self._settings.every_hours:
            try:
                if may():
                    await self.run_due()
            except Exception:
                # A database that is away for a moment must not end it.
                _log.exception("cards not proved again")
            await asyncio.sleep(every_s)

    async def run_due(self) -> list[str]:
        """Proves every card that is due; those that were rolled back, as `name@digest`."""
        now_ms, every_ms = self._board.now_ms(), round(self._settings.every_hours * _HOUR_MS)
        due = await self._board.cards_unchecked_since(
            now_ms - every_ms, self._settings.wrongs, now_ms - every_ms // _SOONER
        )
        gone = []
        for card in due:
            try:
                if await self._check(card):
                    gone.append(card.card)
            except errors.SkillmeshError as error:
                _log.warning("card not proved again", card=card.card, reason=str(error))
                if error.retryable:
                    continue
            await self._board.card_checked(card.card)
        return gone

    async def _check(self, card: published.PublishedCard) -> bool:
        """Whether a card was rolled back."""
        if await self._others.store.serving(card.name) != card.card:
            return False
        worse = await self._worse(card)
        if not worse:
            _log.info("card proved again", card=card.card)
            return False
        told = f"the gate was run again on {card.card}: {'; '.join(worse)}"
        before = next(iter(await self._others.store.versions_before(card.card)), "")
        known = await self._board.published_card(before) if before else None
        if not before:
            outcome = "it is the first version and stays"
        elif known is not None and await self._worse(known):
            outcome = f"{before} has become worse, too, so it stays"
        elif await self._others.store.serving(card.name) != card.card:
            _log.info("worse card serves no more", card=card.card, worse=worse)
            return False
        else:
            now_ms = self._board.now_ms()
            reason = f"{told}; it makes room for {before}"
            # Told first: a factory that is killed in between proves the card again.
            await self._board.change(card.task_id, lambda task: task.rolled_back(reason, now_ms))
            key = f"{card.card}:recheck:{card.checked_at_ms}"
            serving = await self._others.store.withdraw(key, card.card, before)
            _log.error("card rolled back", card=card.card, serving=serving, worse=worse)
            return True
        _log.error("card has become worse", card=card.card, worse=worse, outcome=outcome)
        now_ms = self._board.now_ms()
        await self._board.change(
            card.task_id, lambda task: task.noted(f"{told}; {outcome}", now_ms)
        )
        return False

    async def _worse(self, card: published.PublishedCard) -> list[str]:
        async def attempt() -> partners.Rechecked:
            async with self._others.trainers.borrowed("") as (_, trainer):
                return await trainer.recheck(
                    f"recheck-{card.card.partition('@')[2]}",
                    partners.Published(card.card, card.dataset_digest),
                    card.triggers,
                    _nobody,
                )

        return worse_rows(await client.retried(attempt, self._patience_s), self._settings.tolerance)


def worse_rows(found: partners.Rechecked, tolerance: float) -> list[str]:
    """The rows of the gate's table that have become worse, for people.

    Args:
        found: the table now and as it was recorded.
        tolerance: share by which a row may fall. What was not asked then has to reach what the
            gate requires. What the gate requires nothing of is told alone and never worse.
    """
    recorded = {row.name: row for row in found.recorded}
    told = []
    for row in found.rows:
        before = recorded.get(row.name)
        due = before.share - tolerance if before is not None and before.asked else row.required
        if row.required and row.asked and row.share < due:
            then = f"{before.right}/{before.asked} before" if before is not None else "new"
            told.append(f"{row.name} {row.right}/{row.asked} ({then})")
    return told


async def _nobody(progress: float, detail: str) -> None:
    """Nobody watches it."""
