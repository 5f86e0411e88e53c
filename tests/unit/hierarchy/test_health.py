"""Verdicts at their bounds, and which action follows which measurement."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Sequence

import pytest

from services.hierarchy import health, health_record, health_settings
from shared import errors
from shared.hierarchy import levels

SWARM, DOMAIN = levels.Level.SWARM, levels.Level.DOMAIN
QUICK = health_settings.HealthSettings(patience_ticks=3, pause_ticks=5, window_ticks=10)
WELL = health.Measurements(
    {SWARM: 1.0, DOMAIN: 0.9},
    queue_depth=9,
    queue_wait_ticks=4,
    offered=20,
    rounds=200,
    fast_tracked=20,
    conflicts=0,
    signal=0.2,
    can_roll_back=True,
)


def entropy(ratio: float, **others: object) -> health.Measurements:
    return dataclasses.replace(WELL, entropy_ratios={SWARM: ratio}, **others)  # type: ignore[arg-type]


def run(ratios: Sequence[float], **others: object) -> list[list[tuple[str, float]]]:
    """Actions on the swarm, tick by tick."""
    monitor = health.HealthMonitor(QUICK)
    found = []
    for ratio in ratios:
        actions = monitor.report(entropy(ratio, **others)).actions
        assert all(action.level is SWARM for action in actions)
        found.append([(action.remedy.value, action.step) for action in actions])
    return found


def test_all_is_well_and_nothing_is_done_when_every_measure_is_within_its_bounds() -> None:
    monitor = health.HealthMonitor()
    for tick in range(1, 31):
        report = monitor.report(WELL)
        assert report.verdict is health.Verdict.HEALTHY
        assert (report.tick, report.actions) == (tick, ())
        assert report.entropy_is_healthy
    assert {found.aspect for found in report.findings} == set(health.Aspect)


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        (0.8, "healthy"),
        (1.2, "healthy"),
        (0.79, "warning"),
        (1.21, "warning"),
        (0.5, "warning"),
        (2.0, "warning"),
        (0.49, "critical"),
        (2.01, "critical"),
        (math.inf, "critical"),
        (math.nan, "critical"),
    ],
)
def test_entropy_is_judged_by_its_ratio_to_the_optimum(ratio: float, verdict: str) -> None:
    report = health.HealthMonitor().report(entropy(ratio))
    assert report.verdict == verdict
    assert report.entropy_is_healthy is (verdict == "healthy")
    assert (report.findings[0].message == "") is (verdict == "healthy")


@pytest.mark.parametrize(
    ("changed", "aspect"),
    [
        ({"queue_depth": 10}, health.Aspect.QUEUE_DEPTH),
        ({"queue_wait_ticks": 5}, health.Aspect.QUEUE_WAIT),
        ({"offered": 100, "rejected": 3}, health.Aspect.REJECTIONS),
        ({"signal": 0.09}, health.Aspect.SIGNAL),
        ({"fast_tracked": 2}, health.Aspect.FAST_TRACK),
        ({"fast_tracked": 52}, health.Aspect.FAST_TRACK),
        ({"conflicts": 17}, health.Aspect.CONFLICTS),
    ],
)
def test_one_thing_is_warned_of_when_it_alone_leaves_its_bounds(
    changed: dict[str, float], aspect: health.Aspect
) -> None:
    measured = dataclasses.replace(WELL, **changed)  # type: ignore[arg-type]
    monitor = health.HealthMonitor()
    monitor.report(measured)
    report = monitor.report(measured)
    assert report.verdict is health.Verdict.WARNING
    bad = [found for found in report.findings if found.verdict is not health.Verdict.HEALTHY]
    assert [found.aspect for found in bad] == [aspect]
    assert "healthy is" in bad[0].message


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"offered": 100, "rejected": 2}, "within two errors of 1 %"),
        ({"conflicts": 16}, "within two errors of 5 %"),
        ({"fast_tracked": 51}, "within two errors of 20 %"),
        ({"rounds": 40, "fast_tracked": 1, "signal": 0.0}, "agents learn different things"),
        ({"rounds": 9, "fast_tracked": 9}, "few agents that learn the same thing"),
    ],
)
def test_nothing_is_warned_of_when_a_limit_says_nothing_there(
    changed: dict[str, float], message: str
) -> None:
    monitor = health.HealthMonitor(dataclasses.replace(QUICK, window_ticks=4))
    measured = dataclasses.replace(WELL, **changed)  # type: ignore[arg-type]
    first = monitor.report(measured)
    assert first.verdict is health.Verdict.HEALTHY, message
    if measured.rounds < 20:
        assert [monitor.report(measured) for _ in range(3)][-1].verdict == "healthy", message


def test_rates_are_over_the_window_and_what_left_it_no_longer_counts() -> None:
    monitor = health.HealthMonitor(QUICK)
    monitor.report(dataclasses.replace(WELL, rejected=20, conflicts=0))
    verdicts = [monitor.report(WELL).verdict.value for _ in range(10)]
    assert verdicts == ["warning"] * 9 + ["healthy"]
    assert len(monitor.state.window) == 10


def test_resonance_is_not_judged_when_too_few_agents_were_compared() -> None:
    monitor = health.HealthMonitor()
    few = dataclasses.replace(WELL, rounds=10, fast_tracked=0, signal=0.4, conflicts=10)
    assert monitor.report(few).verdict is health.Verdict.HEALTHY
    assert monitor.report(few).verdict is health.Verdict.WARNING


def test_the_threshold_is_steered_once_per_pause_when_entropy_is_off() -> None:
    low, high = [("raise_threshold", 0.05)], [("lower_threshold", -0.05)]
    assert run([0.7] * 7) == [low, [], [], [], [], low, []]
    assert run([1.5] * 7) == [high, [], [], [], [], high, []]


def test_a_layer_is_rolled_back_when_it_crystallises_for_long() -> None:
    raised, back = [("raise_threshold", 0.05)], [("roll_back", 0.0)]
    assert run([0.3] * 4 + [1.0]) == [raised, [], [], back, []]
    assert run([0.3, 0.3, 1.0, 0.3, 0.3]) == [raised, [], [], [], []]


def test_a_layer_is_frozen_then_rolled_back_when_it_forgets() -> None:
    frozen, thawed = [("freeze", 0.0)], [("thaw", 0.0)]
    assert run([2.5] * 4 + [1.0]) == [frozen, [], [], [*thawed, ("roll_back", 0.0)], []]
    assert run([2.5, 2.5, 1.1]) == [frozen, [], thawed]


def test_a_layer_is_thawed_when_there_is_nothing_to_roll_back_to() -> None:
    found = run([2.5] * 4, can_roll_back=False)
    assert found[0] == [("freeze", 0.0)]
    assert found[3] == [("thaw", 0.0), ("lower_threshold", -0.05)]


def test_roll_backs_pause_when_they_do_not_help() -> None:
    actions = run([0.3] * 30)
    at = [tick for tick, found in enumerate(actions) if ("roll_back", 0.0) in found]
    assert len(at) >= 2
    assert all(later - earlier >= 5 for earlier, later in itertools.pairwise(at))


def test_the_swarm_is_shielded_step_by_step_while_agents_conflict_and_given_back_after() -> None:
    monitor = health.HealthMonitor(dataclasses.replace(QUICK, most_shielded=2))
    contrary = dataclasses.replace(WELL, conflicts=40)
    found = []
    for tick in range(1, 91):
        report = monitor.report(contrary if tick <= 40 else WELL)
        found += [(tick, action.remedy.value, action.step) for action in report.actions]
        assert all(action.level is SWARM and action.reason for action in report.actions)
        fresh = health.HealthMonitor(dataclasses.replace(QUICK, most_shielded=2))
        values = json.loads(json.dumps(health_record.state_values(monitor.state)))
        fresh.restore(health_record.state_of(values))
        monitor = fresh
    # A step a window of 10 ticks, two in all; what was conflict leaves the window after tick 48.
    assert found == [
        (10, "lower_threshold", -0.05),
        (20, "lower_threshold", -0.05),
        (48, "raise_threshold", 0.05),
        (58, "raise_threshold", 0.05),
    ]


def test_fast_track_is_never_a_reason_for_an_action() -> None:
    monitor = health.HealthMonitor(QUICK)
    everyone = dataclasses.replace(WELL, fast_tracked=200)
    reports = [monitor.report(everyone) for _ in range(50)]
    assert {report.verdict.value for report in reports} == {"warning"}
    assert all(report.actions == () for report in reports)


def test_findings_stay_and_actions_cease_when_it_is_switched_off() -> None:
    monitor = health.HealthMonitor(dataclasses.replace(QUICK, enabled=False))
    reports = [monitor.report(entropy(9.0)) for _ in range(10)]
    assert {report.verdict for report in reports} == {health.Verdict.CRITICAL}
    assert all(not report.actions for report in reports)


def test_a_monitor_goes_on_the_same_way_when_it_is_restored() -> None:
    one, other = health.HealthMonitor(QUICK), health.HealthMonitor(QUICK)
    ratios = [1.0, 0.7, 2.5, 2.5, 0.3, 0.3, 0.3, 0.3, 2.5, 2.5, 2.5, 2.5, 1.0, 0.6]
    for ratio in ratios:
        measured = entropy(ratio, rejected=int(ratio > 2))
        assert one.report(measured) == other.report(measured)
        fresh = health.HealthMonitor(QUICK)
        fresh.restore(other.state)
        other = fresh


def test_counts_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(errors.InvalidInputError, match="21 rejected of 20"):
        health.HealthMonitor().report(dataclasses.replace(WELL, rejected=21))
    with pytest.raises(errors.InvalidInputError, match="count again"):
        health.HealthMonitor().report(dataclasses.replace(WELL, fast_tracked=199, conflicts=2))
