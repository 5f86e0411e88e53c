"""The nightly batch: tasks of low priority wait for it, are joined to skills, and then start.

The latest night that was due and is not in the book is gathered, whether its time has just come or
the factory was down when it came: a factory that missed several makes up for them once. Knows
nothing about DBOS: what the batch releases starts like every task, in the order of the batch and
behind whatever is urgent.
"""

from __future__ import annotations

import asyncio
import datetime
import zoneinfo
from collections.abc import Awaitable, Callable, Sequence

import croniter
import numpy as np
import structlog

from services.factory import board, clusters, meanings, nights, tasks
from shared import errors, learning_settings
from shared import settings as config

_log = structlog.get_logger(__name__)
_EVERY_S = 30.0
"""How often the time is looked at; clocks may jump."""
_QUESTIONS_A_TASK = 4
"""Whose mean stands for a task's meaning."""


class Schedule:
    """When nights begin, and which tasks wait for them."""

    def __init__(self, settings: learning_settings.Nightly) -> None:
        """Takes the cron expression and the limit."""
        self._settings = settings
        self._zone = zoneinfo.ZoneInfo(settings.timezone)

    def latest_ms(self, now_ms: int) -> int:
        """Unix time of the latest night that has begun."""
        # From the next one back: going back from a moment leaves out a night of that very moment.
        cron = croniter.croniter(self._settings.cron, self._moment(self.next_ms(now_ms)))
        return _ms(cron.get_prev(datetime.datetime))

    def next_ms(self, now_ms: int) -> int:
        """Unix time of the next one."""
        cron = croniter.croniter(self._settings.cron, self._moment(now_ms))
        return _ms(cron.get_next(datetime.datetime))

    def sleep(self, now_ms: int) -> nights.Sleep:
        """Which tasks wait, and what people see of them."""
        if not self._settings.enabled:
            return nights.AWAKE
        at = self._moment(self.next_ms(now_ms))
        return nights.Sleep(
            self._settings.priority_below,
            f"waits for the night: starts after {at:%Y-%m-%d %H:%M} {self._settings.timezone}",
        )

    def _moment(self, at_ms: int) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(at_ms / 1000, self._zone)


class NightShift:
    """Gathers the nightly batches."""

    def __init__(
        self,
        kept: board.TaskBoard,
        admit: Callable[[], Awaitable[None]],
        settings: learning_settings.Nightly,
        rotation: clusters.Rotation,
        embed: meanings.Embed | None = None,
        relearn: Callable[[int], Awaitable[bool]] | None = None,
    ) -> None:
        """Takes what it works with.

        Args:
            kept: the tasks.
            admit: lets what was released start.
            settings: when, and which tasks.
            rotation: teachers and base models.
            embed: makes sentence vectors; without it every task is a skill of its own.
            relearn: opens tasks for the code bases that moved on, given the Unix time at which the
                night was due; says whether it looked at any.
        """
        self._relearn = relearn
        self._board, self._admit, self._settings = kept, admit, settings
        self._rotation, self._embed = rotation, embed
        self._schedule = Schedule(settings)

    async def run_now(self, idempotency_key: str) -> nights.Night:
        """Gathers what waits now; the same key again returns the first batch.

        Raises:
            errors.InvalidInputError: the key is empty.
        """
        if not idempotency_key:
            raise errors.InvalidInputError("idempotency_key is empty: it is what runs a night once")
        return await self._run(f"asked:{idempotency_key}", self._board.now_ms(), keep_empty=True)

    async def run_due(self) -> nights.Night | None:
        """Gathers the latest night that was due, where that has not been done."""
        due_ms = self._schedule.latest_ms(self._board.now_ms())
        at = datetime.datetime.fromtimestamp(due_ms / 1000, datetime.UTC)
        night = await self._run(f"cron:{at.isoformat()}", due_ms)
        return night if night.tasks else None

    async def run_for_ever(self, every_s: float = _EVERY_S) -> None:
        """Gathers every night when it is due, a missed one at once."""
        while True:
            try:
                await self.run_due()
            except Exception:
                # A database that is away for a moment must not end it.
                _log.exception("night not gathered")
            now_ms = self._board.now_ms()
            left_s = (self._schedule.next_ms(now_ms) - now_ms) / 1000
            await asyncio.sleep(min(every_s, max(0.0, left_s)))

    async def _run(self, night_id: str, due_ms: int, keep_empty: bool = False) -> nights.Night:
        known = await self._board.night(night_id)
        if known is not None:
            # A factory killed right after gathering has let nothing start yet.
            await self._admit()
            return known
        if self._relearn is not None and await self._relearn(due_ms):
            # Once a night: what moves on later in the day waits for the next one.
            keep_empty = True
        sleep = self._schedule.sleep(self._board.now_ms())
        gaps = await self._board.waiting_for_night(sleep, due_ms)
        if not gaps and not keep_empty:
            return nights.Night(night_id, due_ms, self._board.now_ms(), 0, ())
        found = clusters.skills(gaps, await self._vectors(gaps), self._settings.same_skill)
        plan = self._rotation.shared_out(found, await self._board.night_count())
        night = await self._board.gather(night_id, due_ms, plan)
        late_s = max(0, night.gathered_at_ms - due_ms) / 1000
        _log.info(
            "night gathered",
            night=night_id,
            tasks=night.tasks,
            skills=len(night.skills),
            late_s=round(late_s),
        )
        await self._admit()
        return night

    async def _vectors(self, gaps: Sequence[tasks.TrainingTask]) -> meanings.Vectors | None:
        """A unit vector of each task."""
        if self._embed is None or not gaps:
            return None
        asked = [(gap.queries or (gap.trigger_query,))[:_QUESTIONS_A_TASK] for gap in gaps]
        try:
            vectors_Q_D = await self._embed([query for queries in asked for query in queries])
        except errors.SkillmeshError as error:
            _log.warning("gaps not joined to skills: no vectors", reason=str(error))
            return None
        ends = np.cumsum([len(queries) for queries in asked])
        means = [part.mean(axis=0) for part in np.split(vectors_Q_D, ends[:-1])]
        vectors_N_D = np.stack(means)
        lengths_N_1 = np.linalg.norm(vectors_N_D, axis=1, keepdims=True)
        unit: meanings.Vectors = (vectors_N_D / np.maximum(lengths_N_1, 1e-12)).astype(np.float32)
        return unit


def rotation(settings: config.Settings) -> clusters.Rotation:
    """The configured teachers and base models; one base model today."""
    names = [""]
    # The first one is who is asked first anyway.
    if settings.factory.nightly.rotate_teachers:
        names += [
            f"{one.provider_type}:{one.model}" if one.model else one.provider_type
            for one in settings.evolution.fallbacks
        ]
    return clusters.Rotation(tuple(dict.fromkeys(names)), (settings.model.base,))


def _ms(moment: datetime.datetime) -> int:
    return round(moment.timestamp() * 1000)
