"""Which of what a tick gathered makes it fail, so that the rest goes on without it.

A tick is a function of the committed state and of what it gathered: one that fails for a reason
nobody foresaw fails again, tick after tick, for as long as the same is gathered. What fails it is
found by halving, agent by agent (an agent's submissions are one gradient), and settled as refused.
Knows nothing of what a tick does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import structlog

from services.hierarchy import waiting
from shared import errors

_log = structlog.get_logger(__name__)
_MOST = 4
"""Culprits of one tick; what is left then waits for the next one."""
_PASSING = (MemoryError, OSError, errors.OverloadedError, errors.UnavailableError)
_NO_MEMORY = "can't allocate memory"
"""Of a RuntimeError of torch."""


@dataclasses.dataclass(frozen=True)
class Sound:
    """What a tick can take."""

    gathered: waiting.Gathered
    """Without the culprits."""
    culprits: waiting.Gathered = waiting.NOTHING
    reason: str = ""
    """What the tick failed with; empty where there are no culprits."""


def is_input_to_blame(error: Exception) -> bool:
    """Whether an error may come from what was gathered: not from want of memory or disk."""
    return not isinstance(error, _PASSING) and _NO_MEMORY not in str(error)


def sound_part(gathered: waiting.Gathered, attempt: Callable[[waiting.Gathered], None]) -> Sound:
    """Finds the culprits.

    Args:
        gathered: what a tick failed with.
        attempt: a tick that is not committed; raises as that one did.

    Raises:
        Exception: what `attempt` raises with nothing gathered, or for want of memory or disk.
    """
    attempt(waiting.NOTHING)
    left = _parts(gathered)
    culprits: list[waiting.Gathered] = []
    reasons: list[str] = []
    while (error := _error(left, attempt)) is not None:
        if len(culprits) == _MOST:
            left = []
            break
        # The shortest row of parts that fails; the one before it does not.
        good, bad = 0, len(left)
        while bad - good > 1:
            middle = (good + bad) // 2
            found = _error(left[:middle], attempt)
            good, bad = (middle, bad) if found is None else (good, middle)
            error = found or error
        culprits.append(left.pop(bad - 1))
        reasons.append(f"{type(error).__name__}: {error}")
    reason = f"a tick fails with it ({'; '.join(dict.fromkeys(reasons))[:500]})" if reasons else ""
    sound = Sound(_joined(left), _joined(culprits), reason)
    _log.error(
        "a tick failed; it goes on without what it failed with",
        agents=sorted({one.agent for one in sound.culprits.submissions}),
        circuits=[circuit.id for circuit in sound.culprits.circuits.values()],
        reason=reason,
    )
    return sound


def _error(
    parts: list[waiting.Gathered], attempt: Callable[[waiting.Gathered], None]
) -> Exception | None:
    try:
        attempt(_joined(parts))
    except Exception as error:
        if not is_input_to_blame(error):
            raise
        return error
    return None


def _parts(gathered: waiting.Gathered) -> list[waiting.Gathered]:
    """One of each agent, in order, and one of each offered circuit."""
    agents = dict.fromkeys(one.agent for one in gathered.submissions)
    return [
        waiting.Gathered(tuple(one for one in gathered.submissions if one.agent == agent), {})
        for agent in agents
    ] + [waiting.Gathered((), {number: one}) for number, one in gathered.circuits.items()]


def _joined(parts: list[waiting.Gathered]) -> waiting.Gathered:
    submissions = [one for part in parts for one in part.submissions]
    circuits = {number: one for part in parts for number, one in part.circuits.items()}
    return waiting.Gathered(
        tuple(sorted(submissions, key=lambda one: (one.agent, one.sequence))),
        dict(sorted(circuits.items())),
    )
