"""Whether the hierarchy is well, and what to do where it is not.

Takes one `Measurements` per tick and answers with a `Report`. Entropy and queues are judged as they
are now, rates over a window of ticks. Knows nothing of layers, queues or the network: whoever runs
the tick measures, and carries out the actions.

    entropy of a layer        action
    0.8 to 1.2 of optimum     thaw it, if health froze it
    0.5 to 0.8                raise its screening threshold: less is shielded, what dominates fades
    1.2 to 2                  lower it: more is shielded
    below 0.5, crystallising  raise it; still so after `patience` ticks: roll back
    above 2, amnesia          freeze; still so after `patience` ticks: roll back and thaw

A swarm whose agents conflict gets a lower threshold, so that what it knows is shielded. Queues and
missing agreement are reported and left alone: agents that learn different things are no fault.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
from collections.abc import Mapping, Sequence

from shared import errors
from shared.hierarchy import levels


class Verdict(enum.StrEnum):
    """Of a finding, and overall: the worst of all findings."""

    HEALTHY = "healthy"
    WARNING = "warning"
    CRITICAL = "critical"


class Aspect(enum.StrEnum):
    """What was judged."""

    ENTROPY = "entropy"
    QUEUE_DEPTH = "queue_depth"
    QUEUE_WAIT = "queue_wait"
    REJECTIONS = "rejections"
    SIGNAL = "signal"
    FAST_TRACK = "fast_track"
    CONFLICTS = "conflicts"


class Remedy(enum.StrEnum):
    """Corrective action on a layer."""

    FREEZE = "freeze"
    THAW = "thaw"
    ROLL_BACK = "roll_back"
    """To the last healthy snapshot."""
    RAISE_THRESHOLD = "raise_threshold"
    LOWER_THRESHOLD = "lower_threshold"


@dataclasses.dataclass(frozen=True)
class HealthSettings:
    """Bounds, as shares where no unit is given."""

    enabled: bool = True
    """Off: findings without actions."""
    window_ticks: int = 100
    """Of rates."""
    entropy_low: float = 0.8
    entropy_high: float = 1.2
    crystallisation: float = 0.5
    amnesia: float = 2.0
    most_queue: int = 10
    """Circuits in the deepest queue: healthy below."""
    most_wait_ticks: int = 5
    """Of the circuit that has waited longest: healthy below."""
    most_rejections: float = 0.01
    """Of what was offered in the window: healthy below."""
    least_signal: float = 0.1
    """Mean absolute alignment of the agents in the window: healthy above."""
    least_fast_track: float = 0.05
    """Of the agents' rounds in the window."""
    most_fast_track: float = 0.2
    most_conflicts: float = 0.05
    least_rounds: int = 20
    """Agents' rounds in the window, from which resonance is judged."""
    patience_ticks: int = 5
    """That a layer is at risk before it is rolled back."""
    pause_ticks: int = 20
    """After an action on a layer's threshold, or a roll back, until the next of its kind."""
    threshold_step: float = 0.05
    """By which the screening threshold is raised or lowered."""


@dataclasses.dataclass(frozen=True)
class Measurements:
    """Of one tick."""

    entropy_ratios: Mapping[levels.Level, float]
    """Entropy over optimum, by layer."""
    queue_depth: int = 0
    """Circuits that wait in the deepest queue."""
    queue_wait_ticks: int = 0
    """Of the circuit that has waited longest."""
    offered: int = 0
    """Submissions and circuits that came in this tick."""
    rejected: int = 0
    """Of these."""
    rounds: int = 0
    """Agents whose changes were compared in this tick."""
    fast_tracked: int = 0
    conflicts: int = 0
    signal: float = 0.0
    """Mean absolute alignment of these agents with the others, 0 to 1."""
    can_roll_back: bool = False
    """Whether there is a healthy snapshot."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was judged."""

    aspect: Aspect
    verdict: Verdict
    value: float
    message: str
    """What is wrong and within which bounds it would be well; empty where it is."""
    level: levels.Level | None = None
    """For entropy."""


@dataclasses.dataclass(frozen=True)
class Action:
    """What is to be done to a layer."""

    remedy: Remedy
    level: levels.Level
    step: float = 0.0
    """For thresholds, signed."""


@dataclasses.dataclass(frozen=True)
class Report:
    """Of one tick."""

    tick: int
    """1 for the first that was reported."""
    verdict: Verdict
    findings: tuple[Finding, ...]
    """All that was judged, also what is well."""
    actions: tuple[Action, ...]

    @property
    def entropy_is_healthy(self) -> bool:
        """Of all layers: such a tick's snapshot is one to roll back to."""
        return all(
            found.verdict is Verdict.HEALTHY
            for found in self.findings
            if found.aspect is Aspect.ENTROPY
        )


@dataclasses.dataclass(frozen=True)
class State:
    """What a monitor remembers between ticks; plain numbers and strings, bounded."""

    tick: int = 0
    window: tuple[tuple[int, int, int, int, int, float], ...] = ()
    """Offered, rejected, rounds, fast tracked, conflicts, signal times rounds; a tick each."""
    at_risk: Mapping[levels.Level, int] = dataclasses.field(default_factory=dict)
    """Ticks in a row that a layer's entropy was at risk."""
    frozen: tuple[levels.Level, ...] = ()
    """Layers that health froze."""
    steered: Mapping[levels.Level, int] = dataclasses.field(default_factory=dict)
    """Tick of the last change of a layer's threshold."""
    rolled_back: Mapping[levels.Level, int] = dataclasses.field(default_factory=dict)
    """Tick of its last roll back."""


class HealthMonitor:
    """Judges tick after tick; the same state and measurements give the same report."""

    def __init__(self, settings: HealthSettings | None = None) -> None:
        """Nothing seen yet."""
        self._settings = settings or HealthSettings()
        self.restore(State())

    @property
    def state(self) -> State:
        """To be kept with the layers, so that a restart judges as if there had been none."""
        return State(
            self._tick,
            tuple(self._window),
            dict(self._at_risk),
            tuple(sorted(self._frozen)),
            dict(self._steered),
            dict(self._rolled_back),
        )

    def restore(self, state: State) -> None:
        """Goes on from a state."""
        self._tick = state.tick
        self._window = collections.deque(state.window, maxlen=self._settings.window_ticks)
        self._at_risk = dict(state.at_risk)
        self._frozen = set(state.frozen)
        self._steered = dict(state.steered)
        self._rolled_back = dict(state.rolled_back)

    def report(self, measured: Measurements) -> Report:
        """Judges one tick.

        Raises:
            errors.InvalidInputError: more was rejected than offered, or marked than compared.
        """
        if (
            measured.rejected > measured.offered
            or measured.fast_tracked + measured.conflicts > measured.rounds
        ):
            raise errors.InvalidInputError(
                f"{measured.rejected} rejected of {measured.offered}, {measured.fast_tracked} fast "
                f"tracked and {measured.conflicts} in conflict of {measured.rounds}: count again"
            )
        self._tick += 1
        self._window.append(
            (
                measured.offered,
                measured.rejected,
                measured.rounds,
                measured.fast_tracked,
                measured.conflicts,
                measured.signal * measured.rounds,
            )
        )
        findings = [*self._entropy(measured), *self._bandwidth(measured), *self._resonance()]
        actions = self._actions(measured, findings) if self._settings.enabled else []
        return Report(self._tick, _worst(findings), tuple(findings), tuple(actions))

    def _entropy(self, measured: Measurements) -> list[Finding]:
        bounds = self._settings
        findings = []
        for level, ratio in measured.entropy_ratios.items():
            verdict, message = Verdict.HEALTHY, ""
            if not bounds.entropy_low <= ratio <= bounds.entropy_high:
                verdict = Verdict.WARNING
                message = (
                    f"{level}: entropy is {ratio:.2f} of its optimum, healthy is "
                    f"{bounds.entropy_low} to {bounds.entropy_high}"
                )
            if ratio < bounds.crystallisation:
                verdict, message = Verdict.CRITICAL, f"{message}; it crystallises"
            elif not ratio <= bounds.amnesia:  # NaN, too.
                verdict, message = Verdict.CRITICAL, f"{message}; it forgets what it knew"
            findings.append(Finding(Aspect.ENTROPY, verdict, ratio, message, level))
        return findings

    def _bandwidth(self, measured: Measurements) -> list[Finding]:
        offered, rejected = (sum(tick[at] for tick in self._window) for at in (0, 1))
        return [
            _below(Aspect.QUEUE_DEPTH, measured.queue_depth, self._settings.most_queue),
            _below(Aspect.QUEUE_WAIT, measured.queue_wait_ticks, self._settings.most_wait_ticks),
            _below(
                Aspect.REJECTIONS,
                rejected / offered if offered else 0.0,
                self._settings.most_rejections,
            ),
        ]

    def _resonance(self) -> list[Finding]:
        rounds, fast, conflicts, signal = (
            sum(tick[at] for tick in self._window) for at in (2, 3, 4, 5)
        )
        if rounds < self._settings.least_rounds:
            return []
        least, most = self._settings.least_fast_track, self._settings.most_fast_track
        share = fast / rounds
        return [
            _within(Aspect.SIGNAL, signal / rounds, self._settings.least_signal, 1.0),
            _within(Aspect.FAST_TRACK, share, least, most),
            _below(Aspect.CONFLICTS, conflicts / rounds, self._settings.most_conflicts),
        ]

    def _actions(self, measured: Measurements, findings: Sequence[Finding]) -> list[Action]:
        actions = []
        for found in findings:
            if found.aspect is Aspect.ENTROPY and found.level is not None:
                actions += self._for_layer(found.level, found, measured.can_roll_back)
            elif found.aspect is Aspect.CONFLICTS and found.verdict is not Verdict.HEALTHY:
                steered = {action.level for action in actions}
                if levels.Level.SWARM not in steered | self._frozen:
                    actions += self._steer(levels.Level.SWARM, -1)
        return actions

    def _for_layer(self, level: levels.Level, found: Finding, can_roll_back: bool) -> list[Action]:
        bounds = self._settings
        if found.verdict is not Verdict.CRITICAL:
            self._at_risk.pop(level, None)
            thawed = self._thaw(level)
            if found.verdict is Verdict.WARNING:
                return thawed + self._steer(level, 1 if found.value < bounds.entropy_low else -1)
            return thawed
        self._at_risk[level] = self._at_risk.get(level, 0) + 1
        if self._at_risk[level] > bounds.patience_ticks:
            # Without a way back a layer that stays frozen could never recover.
            thawed = self._thaw(level)
            if can_roll_back and self._may(self._rolled_back, level):
                self._at_risk[level] = 0
                return [*thawed, Action(Remedy.ROLL_BACK, level)]
            return thawed + self._steer(level, 1 if found.value < 1.0 else -1)
        if found.value < 1.0:
            return self._steer(level, 1)
        if level in self._frozen:
            return []
        self._frozen.add(level)
        return [Action(Remedy.FREEZE, level)]

    def _thaw(self, level: levels.Level) -> list[Action]:
        if level not in self._frozen:
            return []
        self._frozen.remove(level)
        return [Action(Remedy.THAW, level)]

    def _steer(self, level: levels.Level, sign: int) -> list[Action]:
        if not self._may(self._steered, level):
            return []
        remedy = Remedy.RAISE_THRESHOLD if sign > 0 else Remedy.LOWER_THRESHOLD
        return [Action(remedy, level, sign * self._settings.threshold_step)]

    def _may(self, last: dict[levels.Level, int], level: levels.Level) -> bool:
        """Whether the pause since the last time is over; this time counts then."""
        if level in last and self._tick - last[level] < self._settings.pause_ticks:
            return False
        last[level] = self._tick
        return True


def _below(aspect: Aspect, value: float, bound: float) -> Finding:
    if value < bound:
        return Finding(aspect, Verdict.HEALTHY, value, "")
    message = f"{aspect} is {value:.3g}, healthy is below {bound}"
    return Finding(aspect, Verdict.WARNING, value, message)


def _within(aspect: Aspect, value: float, least: float, most: float) -> Finding:
    if least <= value <= most:
        return Finding(aspect, Verdict.HEALTHY, value, "")
    message = f"{aspect} is {value:.3g}, healthy is {least} to {most}"
    return Finding(aspect, Verdict.WARNING, value, message)


def _worst(findings: Sequence[Finding]) -> Verdict:
    order = list(Verdict)
    return max((found.verdict for found in findings), key=order.index, default=Verdict.HEALTHY)
