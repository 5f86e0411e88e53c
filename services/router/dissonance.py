"""Notices that no card fits, and tells the factory on the side.

The detector turns a decision into an event; the bus takes events without ever making anybody wait,
has personal data and secrets taken out of them before they touch the disk, waits a bounded time for
what the base model's answer tells, and delivers them in the background. Whether a learning task
follows is the factory's decision. Knows nothing about gRPC: it is given a function that delivers.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Collection

import structlog

from services.router import decision as decisions
from services.router import spool as spools
from shared import answer_signals, errors, scrubbing

Deliver = Callable[[spools.Dissonance], Awaitable[None]]
"""Hands one event to the factory; raises `errors.SkillmeshError` where that fails."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 5.0
_REST_S = 0.5
ANSWER_WAIT_S = 30.0
_EARLY_REPORTS = 64
_log = structlog.get_logger(__name__)


class Detector:
    """Makes the event of a decision that shows a gap."""

    def __init__(
        self,
        clock_s: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
        learns: bool = True,
        threshold: float = 0.0,
        silent_tenants: Collection[str] = (),
    ) -> None:
        """Takes what it decides by.

        Args:
            clock_s: Unix time.
            new_id: source of event ids.
            learns: whether questions may start learning at all.
            threshold: confidence from which on a card that is hidden from the asker fits.
            silent_tenants: those whose questions may not.
        """
        self._clock_s = clock_s
        self._new_id = new_id
        self._learns, self._threshold = learns, threshold
        self._silent_tenants = frozenset(silent_tenants)

    def detect(
        self,
        decision: decisions.Decision,
        domain: str = "",
        tenant: str = "",
        traceparent: str = "",
    ) -> spools.Dissonance | None:
        """The event, where no card fits, seen by the asker or not, and nobody opted out.

        Args:
            decision: of the router.
            domain: of the nearest card, where one is near.
            tenant: whose question it is.
            traceparent: of its trace.
        """
        # What others' cards answer is not taught to everybody because somebody else asked. By the
        # router's own threshold: with one of its own an asker could find out how well they fit.
        hidden_fits = decision.hidden_confidence > max(decision.confidence, self._threshold)
        if (
            not decision.dissonance
            or hidden_fits
            or not self._learns
            or tenant in self._silent_tenants
        ):
            return None
        return spools.Dissonance(
            event_id=self._new_id(),
            query=decision.query,
            confidence=decision.confidence,
            detected_at_ms=int(self._clock_s() * 1000),
            domain=domain,
            tenant=tenant,
            traceparent=traceparent,
        )


@dataclasses.dataclass(frozen=True)
class _Fresh:
    """An event that nothing was taken out of yet."""

    event: spools.Dissonance
    awaits_answer: bool


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
        answer_wait_s: float = ANSWER_WAIT_S,
        scrub: Callable[[str], str] = scrubbing.scrub,
    ) -> None:
        """Prepares; nothing is delivered before `start`.

        Args:
            deliver: hands one event to the factory.
            spool: keeps events over restarts.
            capacity: events that may wait, for an answer or for the factory; more are dropped and
                counted.
            first_pause_s: the wait after the first failure; it doubles up to 5 s.
            rest_s: how long an event rests before it leaves, so that what the factory does with it
                does not take processor time from the very answer that it is about.
            clock_s: Unix time.
            answer_wait_s: how long an event waits for the signals of its answer; then it leaves
                without them.
            scrub: takes personal data and secrets out of a question; called off the event loop.
        """
        self._deliver = deliver
        self._spool = spool
        self._capacity = capacity
        self._first_pause_s = first_pause_s
        self._rest_s = rest_s
        self._clock_s = clock_s
        self._answer_wait_s = answer_wait_s
        self._scrub = scrub
        self._fresh: collections.deque[_Fresh] = collections.deque()
        self._held: dict[str, tuple[spools.Dissonance, asyncio.TimerHandle]] = {}
        """By id: those that wait for the signals of their answer."""
        self._early: collections.OrderedDict[str, answer_signals.AnswerSignals | None]
        self._early = collections.OrderedDict()
        """Reports about events that are not held yet; the latest few."""
        self._waiting: collections.deque[spools.Dissonance] = collections.deque()
        self._came, self._wake = asyncio.Event(), asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.emitted = 0
        self.delivered = 0
        self.dropped = 0

    @property
    def waiting(self) -> int:
        """Events that are here and not delivered."""
        return len(self._fresh) + len(self._held) + len(self._waiting)

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
        # Questions may have come since the server listens: they go after what was left. Whoever
        # would tell more about those left has told it to the process before.
        self._waiting.extend(left)
        self._came.set()
        self._wake.set()
        self._tasks = [
            asyncio.create_task(self._take_in_all()),
            asyncio.create_task(self._deliver_all()),
        ]

    async def stop(self) -> None:
        """Stops delivering; what waits stays in the spool."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._tasks:
            while self._fresh:
                self._take_in(self._fresh[0], self._scrubbed(self._fresh[0].event))
        for _, timer in self._held.values():
            timer.cancel()
        self._spool.close()

    def emit(self, event: spools.Dissonance, awaits_answer: bool = False) -> None:
        """Takes an event; never waits and never raises.

        Args:
            event: as the detector made it.
            awaits_answer: `report` will be called for it.
        """
        self.emitted += 1
        if self.waiting >= self._capacity:
            self._drop(event, "queue is full")
            return
        self._fresh.append(_Fresh(event, awaits_answer))
        self._came.set()

    def report(self, event_id: str, signals: answer_signals.AnswerSignals | None) -> None:
        """Takes what the answer to an event's question tells; unknown events are fine.

        Args:
            event_id: of the event.
            signals: None where there is no answer: the event goes without.
        """
        if event_id in self._held:
            self._release(event_id, signals)
            return
        self._early[event_id] = signals
        if len(self._early) > _EARLY_REPORTS:
            self._early.popitem(last=False)

    def _release(self, event_id: str, signals: answer_signals.AnswerSignals | None) -> None:
        event, timer = self._held.pop(event_id)
        timer.cancel()
        if signals is not None:
            event = dataclasses.replace(event, signals=signals)
            self._keep(event)
        self._waiting.append(event)
        self._wake.set()

    async def _take_in_all(self) -> None:
        while True:
            if not self._fresh:
                self._came.clear()
                await self._came.wait()
                continue
            fresh = self._fresh[0]
            # In a thread: a long question takes a while, and others want to be routed.
            self._take_in(fresh, await asyncio.to_thread(self._scrubbed, fresh.event))

    def _scrubbed(self, event: spools.Dissonance) -> spools.Dissonance | None:
        try:
            return dataclasses.replace(event, query=self._scrub(event.query))
        except Exception:
            _log.exception("event not scrubbed", event_id=event.event_id)
            return None

    def _take_in(self, fresh: _Fresh, event: spools.Dissonance | None) -> None:
        self._fresh.popleft()
        if event is None:
            self._drop(fresh.event, "its question could not be scrubbed")
            return
        early = event.event_id in self._early
        if early:
            event = dataclasses.replace(event, signals=self._early.pop(event.event_id))
        self._keep(event)
        if fresh.awaits_answer and not early:
            timer = asyncio.get_running_loop().call_later(
                self._answer_wait_s, self._release, event.event_id, None
            )
            self._held[event.event_id] = (event, timer)
        else:
            self._waiting.append(event)
            self._wake.set()

    def _keep(self, event: spools.Dissonance) -> None:
        try:
            self._spool.append(event)
        except OSError as error:
            # In memory it can still arrive; only a restart would lose it.
            _log.warning("event not spooled", event_id=event.event_id, reason=str(error))

    async def _deliver_all(self) -> None:
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
                    self._waiting.popleft()
                    self._drop(event, f"the factory refused it: {error}")
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

    def _drop(self, event: spools.Dissonance, reason: str) -> None:
        self.dropped += 1
        _log.warning("event dropped", event_id=event.event_id, reason=reason)

    def _acknowledge(self, event: spools.Dissonance) -> None:
        try:
            self._spool.acknowledge(event.event_id, last=not self._waiting and not self._held)
        except OSError as error:
            # The factory counts an event once, so delivering it again after a restart is harmless.
            _log.warning("event not acknowledged", event_id=event.event_id, reason=str(error))


def _refused(error: Exception) -> bool:
    """Whether the factory will never take this event, however often it is sent."""
    return isinstance(error, errors.InvalidInputError | errors.PreconditionError)
