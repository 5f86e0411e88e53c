"""What of health belongs to the state: the actions carried out, and what the monitor remembers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import structlog

from services.hierarchy import health
from shared.hierarchy.levels import Level

_log = structlog.get_logger(__name__)
_MOST_ACTIONS = 64
"""That are remembered."""


@dataclasses.dataclass(frozen=True)
class Done:
    """A corrective action that was carried out."""

    tick: int
    remedy: health.Remedy
    level: Level
    reason: str


class Actions:
    """The last corrective actions, and how many there ever were."""

    def __init__(self) -> None:
        """None yet."""
        self.last: list[Done] = []
        self.counts: dict[str, int] = {}
        """By remedy, since the beginning."""

    def note(self, done: Done) -> None:
        """One more."""
        self.last = [*self.last, done][-_MOST_ACTIONS:]
        self.counts[done.remedy] = self.counts.get(done.remedy, 0) + 1
        _log.warning(
            "health acts",
            remedy=done.remedy.value,
            level=done.level.value,
            tick=done.tick,
            reason=done.reason,
        )

    def values(self) -> dict[str, Any]:
        """All of it in plain values."""
        last = [dataclasses.asdict(done) for done in self.last]
        return {"last": last, "counts": dict(self.counts)}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Takes what `values` gave in place of what it holds."""
        self.counts = dict(values["counts"])
        self.last = [
            Done(done["tick"], health.Remedy(done["remedy"]), Level(done["level"]), done["reason"])
            for done in values["last"]
        ]


def state_values(state: health.State) -> dict[str, Any]:
    """A monitor's state in plain values."""
    return dataclasses.asdict(state)


def state_of(values: Mapping[str, Any]) -> health.State:
    """A monitor's state from plain values."""
    by_level = {
        name: {Level(level): count for level, count in values[name].items()}
        for name in ("at_risk", "steered", "rolled_back")
    }
    return health.State(
        tick=values["tick"],
        window=tuple(tuple(one) for one in values["window"]),
        frozen=tuple(Level(level) for level in values["frozen"]),
        at_risk=by_level["at_risk"],
        steered=by_level["steered"],
        rolled_back=by_level["rolled_back"],
        shielded=values["shielded"],
        shielded_at=values["shielded_at"],
    )
