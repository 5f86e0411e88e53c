"""`MigrationQueue`: the circuits that wait to move from one layer to the next slower one.

A node has one for context to agent, the hierarchy one for each channel above. It decides what
moves in a tick and moves nothing itself; it knows nothing about layers but how large one is.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import math
from collections.abc import Mapping
from typing import Any

from shared import errors
from shared.hierarchy import levels, messages, states, weights

SHARES: Mapping[levels.Level, float] = {
    levels.Level.CONTEXT: 0.01,
    levels.Level.AGENT: 0.005,
    levels.Level.SWARM: 0.001,
    levels.Level.DOMAIN: 0.0001,
}
"""Bandwidth of the channel out of each layer, as a share of its parameters a tick."""


@dataclasses.dataclass(frozen=True)
class QueueSettings:
    """Bounds of a queue."""

    length: int = 64
    """Circuits that wait; what comes then is rejected."""
    most_per_agent: int = 16
    """Of them from one agent."""
    reserve: int = 4
    """Places for critical circuits beyond the length."""
    burst: float = 10.0
    """Ticks' worth of bandwidth that accumulates, above the largest waiting circuit."""
    recovery: float = 0.1
    """Share of the used bandwidth that comes back in a tick; at most the allowance does."""
    patience: int = 200
    """Ticks after which a circuit is overdue, and nothing passes it any more."""
    emergencies: int = 1
    """Critical circuits that move in one tick."""

    def __post_init__(self) -> None:
        """Checks what the bound on waiting rests on.

        Raises:
            errors.ConfigError: what is overdue could wait for ever.
        """
        if self.burst * self.recovery < 1:
            raise errors.ConfigError(
                f"migration: burst {self.burst} times recovery {self.recovery} is below 1, so that "
                "a channel never gives its whole bandwidth; raise one of them"
            )


class Offer(enum.StrEnum):
    """What became of a circuit that was offered."""

    TAKEN = "taken"
    DUPLICATE = "duplicate"
    """It waits, or moved through this channel a short time ago."""
    FULL = "full"
    AGENT_FULL = "agent_full"
    """Its agent has as many in the queue as it may."""
    AT_TOP = "at_top"
    """It may travel no further."""


@dataclasses.dataclass(frozen=True)
class QueueStats:
    """What health and metrics watch."""

    depth: int
    wait_mean_ticks: float
    """Of the last hundred that moved, from offer to move; 1 is the quickest."""
    oldest_ticks: int
    """How long the one waits that has waited longest."""
    hopeless: int
    """How many wait for which there is no bandwidth before they are overdue."""
    late_ticks: int
    """By how much the latest one passed the tick in which its bandwidth let it move; 0: none."""
    offered: int
    """Since the beginning, duplicates aside."""
    rejected: int
    """Of them, for want of a place."""
    rejection_rate: float
    """Among the last thousand offers."""
    duplicates: int
    moved: int
    moved_parameters: int
    """Within the bandwidth."""
    emergency_parameters: int
    """Beside it."""
    tokens: float
    """Parameters that could move now."""


@dataclasses.dataclass(frozen=True)
class _Waiting:
    circuit: messages.Circuit
    arrived: int
    due: int
    """Tick in which the bandwidth lets it move at the latest, with what is before it. What comes
    later and goes before it puts it off."""


def at_top(circuit: messages.Circuit) -> bool:
    """Whether a circuit lies as far up as it may travel."""
    return levels.LEVELS.index(circuit.level) <= levels.LEVELS.index(circuit.top)


class MigrationQueue:
    """A token bucket over a bounded queue; for one thread at a time.

    Bandwidth: `used` shrinks in each tick by 10 % of itself, at most by the allowance (the share of
    the source layer's parameters), and grows by what moves. A circuit fits when `used` stays within
    the capacity: 10 allowances and the largest waiting circuit that isn't critical. The smallest
    circuit may be larger than a slow channel's allowance for a hundred ticks: it moves once the
    bucket is empty enough, and the channel pays for it afterwards. In the first T ticks no more
    moves than T allowances and one capacity, for any T.

    Order: critical ones, beside the bandwidth and few in a tick; then the overdue, longest wait
    first; then FAST_TRACK; then all others, by autocorrelation. One pass a tick: what doesn't fit
    is passed over and stays where it is, and what is overdue isn't passed by anything.

    Waiting is bounded (aging): an overdue circuit has at most `length` - 1 before it, and while it
    blocks the queue the bucket empties by one allowance a tick, so that it waits at most
    `patience` + `length` (1 + largest circuit / allowance) ticks, however strong the others are.
    """

    def __init__(
        self,
        source: levels.Level,
        parameters: int,
        share: float | None = None,
        settings: QueueSettings | None = None,
    ) -> None:
        """Empty, with the whole bandwidth free.

        Args:
            source: the layer that circuits leave.
            parameters: of that layer.
            share: of them that may move in a tick; by default that of `SHARES`.
            settings: bounds.

        Raises:
            errors.ConfigError: no bandwidth, or nothing is above the layer.
        """
        if source.above is None:
            raise errors.ConfigError(f"migration: there is no layer above {source}")
        self.source = source
        self.allowance = parameters * (SHARES[source] if share is None else share)
        """Parameters a tick."""
        if not (self.allowance > 0 and math.isfinite(self.allowance)):
            raise errors.ConfigError(
                f"migration out of {source}: {parameters} parameters and a share of {share} give "
                "no bandwidth; give a share above 0"
            )
        self._settings = settings or QueueSettings()
        self._waiting: dict[str, _Waiting] = {}
        self._moved: collections.deque[str] = collections.deque(maxlen=1024)
        self._waits: collections.deque[int] = collections.deque(maxlen=100)
        self._rejections: collections.deque[bool] = collections.deque(maxlen=1000)
        self._counts = dict.fromkeys(
            ("offered", "rejected", "duplicates", "moved", "moved_parameters", "emergency"), 0
        )
        self._now = 0
        self._used = 0.0

    def __len__(self) -> int:
        """Circuits that wait."""
        return len(self._waiting)

    def __contains__(self, circuit: str) -> bool:
        return circuit in self._waiting

    @property
    def waiting(self) -> tuple[messages.Circuit, ...]:
        """In order of arrival."""
        return tuple(entry.circuit for entry in self._waiting.values())

    @property
    def capacity(self) -> float:
        """What may be used at most, in parameters."""
        sizes = (one.size for one in self.waiting if not one.critical)
        return self._settings.burst * self.allowance + max(sizes, default=0)

    @property
    def stats(self) -> QueueStats:
        """As of now."""
        counts, rejections = self._counts, self._rejections
        waits = [self._now - entry.arrived for entry in self._waiting.values()]
        return QueueStats(
            depth=len(self._waiting),
            wait_mean_ticks=sum(self._waits) / len(self._waits) if self._waits else 0.0,
            oldest_ticks=max(waits, default=0),
            hopeless=sum(
                entry.due - entry.arrived > self._settings.patience
                for entry in self._waiting.values()
            ),
            late_ticks=max(
                (
                    self._now - entry.due
                    for entry in self._waiting.values()
                    if entry.due < self._now
                ),
                default=0,
            ),
            offered=counts["offered"],
            rejected=counts["rejected"],
            rejection_rate=sum(rejections) / len(rejections) if rejections else 0.0,
            duplicates=counts["duplicates"],
            moved=counts["moved"],
            moved_parameters=counts["moved_parameters"],
            emergency_parameters=counts["emergency"],
            tokens=max(0.0, self.capacity - self._used),
        )

    def offer(self, circuit: messages.Circuit) -> Offer:
        """Queues a circuit, unless it can't be.

        Raises:
            errors.InvalidInputError: the circuit lies in another layer.
        """
        if circuit.level is not self.source:
            raise errors.InvalidInputError(
                f"circuit {circuit.id!r} lies in layer {circuit.level}, and this queue leads out "
                f"of {self.source}"
            )
        if at_top(circuit):
            return Offer.AT_TOP
        if circuit.id in self._waiting or circuit.id in self._moved:
            self._counts["duplicates"] += 1
            return Offer.DUPLICATE
        settings = self._settings
        own = sum(entry.circuit.agent == circuit.agent for entry in self._waiting.values())
        places = settings.length + (settings.reserve if circuit.critical else 0)
        outcome = Offer.TAKEN
        if len(self._waiting) >= places:
            outcome = Offer.FULL
        elif own >= settings.most_per_agent and not circuit.critical:
            outcome = Offer.AGENT_FULL
        else:
            self._let_in(circuit)
        rejected = outcome is not Offer.TAKEN
        self._counts["offered"] += 1
        self._counts["rejected"] += rejected
        self._rejections.append(rejected)
        return outcome

    def replace(self, circuit: messages.Circuit) -> bool:
        """Puts a newer form of a waiting circuit in its place (pieces, marks); its wait goes on.

        Returns:
            Whether it waits.
        """
        entry = self._waiting.get(circuit.id)
        if entry is None:
            return False
        self._waiting[circuit.id] = _Waiting(circuit, entry.arrived, entry.due)
        return True

    def withdraw(self, circuit: str) -> bool:
        """Takes a circuit out, by id; whether it waited."""
        return self._waiting.pop(circuit, None) is not None

    def tick(self) -> list[messages.Circuit]:
        """One tick: takes out the circuits that move now, in their order."""
        self._now += 1
        self._used -= min(self.allowance, self._settings.recovery * self._used)
        capacity, emergencies = self.capacity, self._settings.emergencies
        moving = []
        for entry in sorted(self._waiting.values(), key=self._place):
            size = entry.circuit.size
            if entry.circuit.critical:
                if emergencies == 0:
                    continue
                emergencies -= 1
                self._counts["emergency"] += size
            elif self._used + size <= capacity:
                self._used += size
                self._counts["moved_parameters"] += size
            elif self._is_overdue(entry):
                break
            else:
                continue
            moving.append(entry)
        for entry in moving:
            del self._waiting[entry.circuit.id]
            self._moved.append(entry.circuit.id)
            self._waits.append(self._now - entry.arrived)
        self._counts["moved"] += len(moving)
        return [entry.circuit for entry in moving]

    def state(self) -> states.State:
        """All of it, for `restore`."""
        record = {
            "now": self._now,
            "used": self._used,
            "counts": self._counts,
            "moved": list(self._moved),
            "waits": list(self._waits),
            "rejections": list(self._rejections),
            "waiting": [
                {
                    "arrived": entry.arrived,
                    "due": entry.due,
                    "circuit": _described(entry.circuit),
                }
                for entry in self._waiting.values()
            ],
        }
        factors = [factors for circuit in self.waiting for factors in circuit.pieces.values()]
        return states.pack(
            record, {"a": [one.a for one in factors], "b": [one.b for one in factors]}
        )

    def restore(self, state: states.State) -> None:
        """Takes over a state, in place of what waits.

        Raises:
            errors.IntegrityError: the state does not fit together.
        """
        record, groups = states.unpack(state)
        pieces = iter(
            [weights.Factors(*pair) for pair in zip(groups["a"], groups["b"], strict=True)]
        )
        self._now, self._used, self._counts = record["now"], record["used"], record["counts"]
        for name in ("moved", "waits", "rejections"):
            values = getattr(self, f"_{name}")
            values.clear()
            values.extend(record[name])
        self._waiting = {}
        for entry in record["waiting"]:
            described = entry["circuit"]
            held = {path: next(pieces) for path in described["pieces"]}
            circuit = _circuit(described, held)
            self._waiting[circuit.id] = _Waiting(circuit, entry["arrived"], entry["due"])

    def _let_in(self, circuit: messages.Circuit) -> None:
        fresh = _Waiting(circuit, self._now, 0)
        place = self._place(fresh)
        before = [one for one in self._waiting.values() if self._place(one) <= place]
        if circuit.critical:
            turn = len(before) // max(1, self._settings.emergencies)
            self._waiting[circuit.id] = dataclasses.replace(fresh, due=self._now + 1 + turn)
            return
        for name, one in self._waiting.items():
            if self._place(one) > place:
                later = one.due + 1 + math.ceil(circuit.size / self.allowance)
                self._waiting[name] = dataclasses.replace(one, due=later)
        # From where the bucket is it falls by an allowance a tick, down to the burst; each waits
        # for the next whole tick.
        before = [one for one in before if not one.circuit.critical]
        debt = self._used - self._settings.burst * self.allowance
        ahead = debt + sum(one.circuit.size for one in before)
        ticks = 1 + len(before) + math.ceil(max(0.0, ahead) / self.allowance)
        self._waiting[circuit.id] = dataclasses.replace(fresh, due=self._now + ticks)

    def _is_overdue(self, entry: _Waiting) -> bool:
        return self._now - entry.arrived >= self._settings.patience

    def _place(self, entry: _Waiting) -> tuple[int, float]:
        """Sorts; equal ones stay in order of arrival."""
        circuit = entry.circuit
        if circuit.critical:
            return 0, entry.arrived
        if self._is_overdue(entry):
            return 1, entry.arrived
        strength = circuit.autocorrelation if math.isfinite(circuit.autocorrelation) else 0.0
        return 2 if circuit.fast_track else 3, -strength


def _described(circuit: messages.Circuit) -> dict[str, Any]:
    fields = dataclasses.fields(circuit)
    values = {field.name: getattr(circuit, field.name) for field in fields}
    return values | {"pieces": list(circuit.pieces)}


def _circuit(described: Mapping[str, Any], pieces: weights.Weights) -> messages.Circuit:
    channels = {path: tuple(numbers) for path, numbers in described["channels"].items()}
    where = {name: levels.Level(described[name]) for name in ("level", "top")}
    return messages.Circuit(**{**described, **where, "channels": channels, "pieces": pieces})
