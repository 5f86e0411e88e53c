"""Notices that no card fits, and tells the factory on the side.

The detector turns a decision into an event; the bus takes events without ever making anybody wait
and delivers them in the background. Whether a learning task follows is the factory's decision.
Knows nothing about gRPC: it is given a function that delivers.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
import time
import uuid
from collections.abc import Awaitable, Callable

import structlog

from services.router import router as routers
from services.router import spool as spools
from shared import errors

Deliver = Callable[[spools.Dissonance], Awaitable[None]]
"""Hands one event to the factory; raises `errors.SkillmeshError` where that fails."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 5.0
_REST_S = 0.5
_log = structlog.get_logger(__name__)


class Detector:
    """Makes the event of a decision that shows a gap."""

    def __init__(
        self,
        clock_s: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        """Takes the clock (Unix time) and the source of event ids."""
        self._clock_s = clock_s
        self._new_id = new_id

    def detect(self, decision: routers.Decision) -> spools.Dissonance | None:
        """The event, where the confidence lies below the threshold."""
        if not decision.dissonance:
            return None
        return spools.Dissonance(
            event_id=self._new_id(),
            query=decision.query,
            confidence=decision.confidence,
            detected_at_ms=int(self._clock_s() * 1000),
        )


class EventBus:
    """Bounded, asynchronous, at least once: a restart or an absent factory loses nothing."""

    def __init__(
        self,
        deliver: Deliver,
        spool: spools.Spool,
        capacity: int,
        first_pause_s: float = _FIRST_PAUSE_S,
        rest_s: float = _REST_S,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        """Prepares; nothing is delivered before `start`.

        Args:
            deliver: hands one event to the factory.
            spool: keeps events over restarts.
            capacity: events that may wait; more are dropped and counted.
            first_pause_s: the wait after the first failure; it doubles up to 5 s.
            rest_s: how long an event rests before it leaves, so that what the factory does with it
                does not take processor time from the very answer that it is about.
            clock_s: Unix time.
        """
        self._deliver = deliver
        self._spool = spool
        self._capacity = capacity
        self._first_pause_s = first_pause_s
        self._rest_s = rest_s
        self._clock_s = clock_s
        self._waiting: collections.deque[spools.Dissonance] = collections.deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.emitted = 0
        self.delivered = 0
        self.dropped = 0

    async def start(self) -> None:
        """Takes up what an earlier process left and begins to deliver.

        Raises:
            errors.ConfigError: the state folder can't be written.
        """
        try:
            left = await asyncio.to_thread(self._spool.open)
        except OSError as error:
            raise errors.ConfigError(
                f"the router can't keep its events: {error}; check cluster.state_dir"
            ) from error
        # Questions may have come since the server listens: they go after what was left.
        early = list(self._waiting)
        self._waiting.clear()
        self._waiting.extend(left)
        for event in early:
            self._waiting.append(event)
            self._keep(event)
        self._wake.set()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stops delivering; what waits stays in the spool."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._spool.close()

    def emit(self, event: spools.Dissonance) -> None:
        """Takes an event; never waits and never raises."""
        self.emitted += 1
        if len(self._waiting) >= self._capacity:
            self.dropped += 1
            _log.warning("event dropped: queue is full", event_id=event.event_id)
            return
        self._waiting.append(event)
        self._wake.set()
        if self._task is not None:
            self._keep(event)

    def _keep(self, event: spools.Dissonance) -> None:
        try:
            self._spool.append(event)
        except OSError as error:
            # In memory it can still arrive; only a restart would lose it.
            _log.warning("event not spooled", event_id=event.event_id, reason=str(error))

    async def _run(self) -> None:
        pause_s, rested = self._first_pause_s, ""
        while True:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
                continue
            event = self._waiting[0]
            if event.event_id != rested:
                rested = event.event_id
                await asyncio.sleep(self._rest_left_s(event))
            try:
                await self._deliver(event)
            except Exception as error:
                if _refused(error):
                    _log.warning("event refused", event_id=event.event_id, reason=str(error))
                    self._waiting.popleft()
                    self.dropped += 1
                    self._acknowledge(event)
                    continue
                # What goes wrong with one event must not hold up the others: it goes last.
                self._waiting.rotate(-1)
                _log.info("event waits", waiting=len(self._waiting), reason=str(error))
                await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
                continue
            self._waiting.popleft()
            self.delivered += 1
            pause_s = self._first_pause_s
            self._acknowledge(event)

    def _rest_left_s(self, event: spools.Dissonance) -> float:
        left_s = event.detected_at_ms / 1000 + self._rest_s - self._clock_s()
        return min(left_s, self._rest_s)  # The clock may have been set back.

    def _acknowledge(self, event: spools.Dissonance) -> None:
        try:
            self._spool.acknowledge(event.event_id, last=not self._waiting)
        except OSError as error:
            # The factory counts an event once, so delivering it again after a restart is harmless.
            _log.warning("event not acknowledged", event_id=event.event_id, reason=str(error))


def _refused(error: Exception) -> bool:
    """Whether the factory will never take this event, however often it is sent."""
    return isinstance(error, errors.InvalidInputError | errors.PreconditionError)
