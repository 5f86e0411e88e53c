"""A circuit breaker: leaves a peer alone that keeps failing, and finds out when it is back.

    CLOSED ── failures in a row, or one that waiting won't mend ──▶ OPEN
      ▲                                                             │ its pause is over
      └────── the request succeeds ────── HALF_OPEN ◀───────────────┘
                                            └── it fails ──▶ OPEN, for twice as long

A peer is a teacher of the distiller or a node behind the gateway. Small and of our own: the
libraries at hand know neither how long a peer asks to be left alone nor a pause that grows.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Protocol

import structlog

from shared import errors

_log = structlog.get_logger(__name__)
_MOST_DOUBLINGS = 32


class Settings(Protocol):
    """When a peer is left alone; sections of config.yaml are such."""

    @property
    def failures(self) -> int:
        """So many in a row open the circuit."""
        ...

    @property
    def pause_s(self) -> float:
        """The first pause; each failure after it doubles it."""
        ...

    @property
    def longest_pause_s(self) -> float:
        """It grows no further."""
        ...


class Advice(Protocol):
    """What a failure tells about asking again."""

    @property
    def after_s(self) -> float | None:
        """How long the peer asks to be left alone."""
        ...

    @property
    def until_mended(self) -> bool:
        """Nothing will succeed until a person has done something."""
        ...


@dataclasses.dataclass(frozen=True)
class _Silence:
    after_s: float | None = None
    until_mended: bool = False


def _no_advice(error: errors.SkillmeshError) -> Advice:
    return _Silence()


class State(enum.Enum):
    """Who may ask."""

    CLOSED = "closed"
    """Everybody."""
    OPEN = "open"
    """Nobody."""
    HALF_OPEN = "half-open"
    """One request."""


@dataclasses.dataclass(frozen=True)
class Circuit:
    """How a peer's circuit stands, for people."""

    name: str
    state: State
    reason: str = ""
    """Why it is not closed."""
    open_for_s: float = 0.0
    """Nobody asks it for so long."""


class CircuitBreaker:
    """Guards one peer."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        clock: Callable[[], float],
        kind: str,
        advice: Callable[[errors.SkillmeshError], Advice] = _no_advice,
    ) -> None:
        """Starts closed.

        Args:
            name: the peer.
            settings: after how many failures it opens, and for how long.
            clock: seconds, monotonic.
            kind: what the peer is, for the log: `teacher`, `node`.
            advice: what a failure tells about asking again; by default nothing.
        """
        self._name, self._settings, self._clock = name, settings, clock
        self._kind, self._advice = kind, advice
        self._who = {kind: name}
        self._failures = 0
        self._openings = 0
        self._until_s: float | None = None
        self._asking = False
        self._last: errors.SkillmeshError | None = None

    @property
    def last_error(self) -> errors.SkillmeshError | None:
        """The latest failure since it last succeeded."""
        return self._last

    def circuit(self) -> Circuit:
        """How it stands now."""
        if self._until_s is None:
            return Circuit(self._name, State.CLOSED)
        left_s = self._until_s - self._clock()
        state = State.OPEN if left_s > 0 else State.HALF_OPEN
        return Circuit(self._name, state, str(self._last or ""), max(0.0, left_s))

    def refusal(self) -> errors.SkillmeshError | None:
        """Why nobody may ask now: the last failure, with how long it keeps others away."""
        circuit = self.circuit()
        if self._last is None or circuit.state is State.CLOSED:
            return None
        if circuit.state is State.OPEN:
            note = f"left alone for another {circuit.open_for_s:.0f} s"
        elif self._asking:
            note = "another request finds out whether it is back"
        else:
            return None
        return type(self._last)(f"{self._last} ({note})")

    def asks(self) -> None:
        """A request goes out that `refusal` did not hold back; one of the next three ends it."""
        if self.circuit().state is State.HALF_OPEN:
            self._asking = True
            _log.info(f"{self._kind} is tried again", **self._who)

    def succeeded(self) -> None:
        """It answered, be it with a refusal: the peer works."""
        if self._until_s is not None:
            _log.info(f"{self._kind} is back", **self._who)
        self._failures = self._openings = 0
        self._until_s, self._last, self._asking = None, None, False

    def failed(self, error: errors.SkillmeshError) -> None:
        """It could not be asked."""
        advice = self._advice(error)
        if self.circuit().state is State.OPEN and not advice.until_mended:
            # It was asked before that: all it tells is how long to stay away.
            until_s = self._clock() + (advice.after_s or 0.0)
            self._until_s = max(self._until_s or 0.0, until_s)
            return
        half_open = self._asking
        self._failures += 1
        self._last, self._asking = error, False
        doubles = advice.until_mended or half_open or self._failures >= self._settings.failures
        if advice.until_mended:
            pause_s = self._settings.longest_pause_s
        elif doubles:
            pause_s = self._settings.pause_s * 2.0 ** min(self._openings, _MOST_DOUBLINGS)
            pause_s = min(pause_s, self._settings.longest_pause_s)
        elif advice.after_s:
            pause_s = 0.0
        else:
            return
        # A peer that says when to come back is not down for longer each time.
        self._openings += doubles
        pause_s = max(pause_s, advice.after_s or 0.0)
        self._until_s = self._clock() + pause_s
        _log.warning(
            f"{self._kind} is left alone",
            **self._who,
            pause_s=round(pause_s),
            reason=str(error),
        )

    def abandoned(self) -> None:
        """The request ended without telling anything about the peer."""
        self._asking = False
