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

A swarm whose agents conflict for a whole window gets a lower threshold, so that what it knows is
shielded; when they agree again, it is given back step by step. Nothing else is acted on: agents
that learn different things are no fault.

A limit is judged where it says something, else a healthy run would never be called one:

    queues          against what their bandwidth promises (`migration_queue.QueueStats`): a circuit
                    of 8,000 parameters needs 27 ticks from an agent to the swarm, however well all
                    is; the limits are on what comes later than that, or never
    rejections      of circuits alone, for want of a place: a submission that is left out is the
                    aggregation at work, and takes no bandwidth
    rates           beyond their limit by two standard errors of so few rounds (score test: Wilson
                    1927): 1 of 20 is 5 %, and no sign of anything
    fast track      above its limit only among ten agents or more: those who agree are two at least,
                    and two of nine are more than 20 %. Below its limit only where the signal says
                    that agents do learn the same thing; a weak signal only where some are on the
                    fast track. Both low: they learn different things
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import math
import statistics
from collections.abc import Mapping, Sequence

from services.hierarchy import health_settings
from shared import errors
from shared.hierarchy import levels

_ERRORS = 2.0
"""Standard errors by which a rate is to pass its limit."""


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
class Measurements:
    """Of one tick."""

    entropy_ratios: Mapping[levels.Level, float]
    """Entropy over optimum, by layer."""
    queue_depth: int = 0
    """Of the worst queue: circuits for which there is no bandwidth before they are overdue."""
    queue_wait_ticks: int = 0
    """Of the circuit that is latest: beyond the tick in which its bandwidth let it move."""
    offered: int = 0
    """Circuits that came in this tick."""
    rejected: int = 0
    """Of these, for want of a place."""
    rounds: int = 0
    """Agents whose changes were compared in this tick."""
    fast_tracked: int = 0
    conflicts: int = 0
    signal: float | None = None
    """Mean absolute alignment of these agents with the others, 0 to 1; None of one alone."""
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
    reason: str = ""
    """What was found."""


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
    window: tuple[tuple[int, int, int, int, int, float | None], ...] = ()
    """Offered, rejected, rounds, fast tracked, conflicts, signal; a tick each."""
    at_risk: Mapping[levels.Level, int] = dataclasses.field(default_factory=dict)
    """Ticks in a row that a layer's entropy was at risk."""
    frozen: tuple[levels.Level, ...] = ()
    """Layers that health froze."""
    steered: Mapping[levels.Level, int] = dataclasses.field(default_factory=dict)
    """Tick of the last change of a layer's threshold."""
    rolled_back: Mapping[levels.Level, int] = dataclasses.field(default_factory=dict)
    """Tick of its last roll back."""
    shielded: int = 0
    """Steps by which conflicts have lowered the swarm's threshold."""
    shielded_at: int = 0
    """Tick of the last one, or of the last that was given back."""


class HealthMonitor:
    """Judges tick after tick; the same state and measurements give the same report."""

    def __init__(self, settings: health_settings.HealthSettings | None = None) -> None:
        """Nothing seen yet."""
        self._settings = settings or health_settings.HealthSettings()
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
            self._shielded,
            self._shielded_at,
        )

    def restore(self, state: State) -> None:
        """Goes on from a state."""
        self._tick = state.tick
        self._window = collections.deque(state.window, maxlen=self._settings.window_ticks)
        self._at_risk = dict(state.at_risk)
        self._frozen = set(state.frozen)
        self._steered = dict(state.steered)
        self._rolled_back = dict(state.rolled_back)
        self._shielded, self._shielded_at = state.shielded, state.shielded_at

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
                measured.signal,
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
        offered, rejected, *_ = self._counts()
        return [
            _below(Aspect.QUEUE_DEPTH, measured.queue_depth, self._settings.most_queue),
            _below(Aspect.QUEUE_WAIT, measured.queue_wait_ticks, self._settings.most_wait_ticks),
            _rate(Aspect.REJECTIONS, rejected, offered, self._settings.most_rejections),
        ]

    def _counts(self) -> list[int]:
        """Of the window: offered, rejected, rounds, fast tracked, conflicts."""
        return [sum(column) for column in zip(*(tick[:5] for tick in self._window), strict=True)]

    def _resonance(self) -> list[Finding]:
        _, _, rounds, fast, conflicts = self._counts()
        bounds = self._settings
        if rounds < bounds.least_rounds:
            return []
        least, most = bounds.least_fast_track, bounds.most_fast_track
        some_agree = fast / rounds > _chance(least, rounds, 1)
        agents = rounds / sum(tick[2] > 0 for tick in self._window)
        is_many = agents >= bounds.least_agents
        signals = [tick[5] for tick in self._window if tick[5] is not None]
        is_aligned = bool(signals) and statistics.fmean(signals) >= bounds.least_signal
        return [
            *_signal(signals, bounds.least_signal if some_agree else 0.0),
            _rate(
                Aspect.FAST_TRACK,
                fast,
                rounds,
                most if is_many else 1.0,
                least if is_aligned else 0.0,
            ),
            _rate(Aspect.CONFLICTS, conflicts, rounds, bounds.most_conflicts),
        ]

    def _actions(self, measured: Measurements, findings: Sequence[Finding]) -> list[Action]:
        actions = []
        for found in findings:
            if found.aspect is Aspect.ENTROPY and found.level is not None:
                done = self._for_layer(found.level, found, measured.can_roll_back)
                actions += [dataclasses.replace(one, reason=found.message) for one in done]
            elif found.aspect is Aspect.CONFLICTS:
                steered = {action.level for action in actions}
                if levels.Level.SWARM not in steered | self._frozen:
                    actions += self._shield(found)
        return actions

    def _shield(self, found: Finding) -> list[Action]:
        """For conflicts: one step a window, so that each step rests on rounds of its own."""
        window, swarm = self._settings.window_ticks, levels.Level.SWARM
        if self._tick < self._shielded_at + window or self._tick < window:
            return []
        lowers = found.verdict is not Verdict.HEALTHY
        if self._shielded == (self._settings.most_shielded if lowers else 0):
            return []
        self._shielded_at = self._tick
        self._shielded += 1 if lowers else -1
        step = self._settings.threshold_step * (-1 if lowers else 1)
        remedy = Remedy.LOWER_THRESHOLD if lowers else Remedy.RAISE_THRESHOLD
        return [Action(remedy, swarm, step, found.message or "agents no longer conflict")]

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


def _signal(signals: Sequence[float], least: float) -> list[Finding]:
    """The mean over the ticks in which there was one."""
    if len(signals) < 2:
        return []
    mean, error = statistics.fmean(signals), statistics.stdev(signals) / math.sqrt(len(signals))
    if mean + _ERRORS * error >= least:
        return [Finding(Aspect.SIGNAL, Verdict.HEALTHY, mean, "")]
    message = f"{Aspect.SIGNAL} is {mean:.3g}, healthy is {least} or more"
    return [Finding(Aspect.SIGNAL, Verdict.WARNING, mean, message)]


def _rate(aspect: Aspect, count: int, of: int, most: float, least: float = 0.0) -> Finding:
    """A share, against limits and what chance may add to them or take from them."""
    share = count / of if of else 0.0
    if not of or _chance(least, of, -1) <= share <= _chance(most, of, 1):
        return Finding(aspect, Verdict.HEALTHY, share, "")
    message = f"{aspect} is {share:.3g} of {of}, healthy is {least} to {most}"
    return Finding(aspect, Verdict.WARNING, share, message)


def _chance(limit: float, of: int, sign: int) -> float:
    return limit + sign * _ERRORS * math.sqrt(limit * (1.0 - limit) / of)


def _worst(findings: Sequence[Finding]) -> Verdict:
    order = list(Verdict)
    return max((found.verdict for found in findings), key=order.index, default=Verdict.HEALTHY)
