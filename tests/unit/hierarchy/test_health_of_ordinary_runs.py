"""A hierarchy whose agents learn as they should is found healthy and left alone."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping

import pytest
import torch

from benchmarks.hierarchy import planted
from services.hierarchy import health, hierarchy
from shared.hierarchy import levels, weights, wire
from shared.hierarchy.levels import Level

FRAME = wire.Frame(
    {f"layers.{at}.q_proj": weights.Shape(48, 40) for at in range(3)},
    {
        Level.FOUNDATION: levels.Spec(16, 0.99),
        Level.DOMAIN: levels.Spec(12, 0.9),
        Level.SWARM: levels.Spec(10, 0.7),
        Level.AGENT: levels.Spec(8, 0.5),
        Level.CONTEXT: levels.Spec(4, 0.1),
    },
)
DOMAINS = [
    planted.common(FRAME, 4, torch.Generator().manual_seed(100 + number)) for number in range(6)
]
TICKS = 125
PERIOD = 30
"""Ticks of a domain."""


def lesson(domain: int) -> planted.Lesson:
    return planted.Lesson(DOMAINS[domain % len(DOMAINS)], noise=1.0, rank=4)


def all_the_same(tick: int) -> Mapping[int, planted.Lesson]:
    return dict.fromkeys(range(3), lesson(tick // PERIOD))


def each_its_own(tick: int) -> Mapping[int, planted.Lesson]:
    return {at: lesson(at) for at in range(4)}


def two_of_each(tick: int) -> Mapping[int, planted.Lesson]:
    """Four agents, a domain of which two see at a time; a third one rehearses an older one."""
    domain = tick // PERIOD
    seen = {domain % 4: lesson(domain), (domain + 1) % 4: lesson(domain)}
    return seen | {(domain + 2) % 4: lesson(max(0, domain - 1))}


def now_and_then(tick: int) -> Mapping[int, planted.Lesson]:
    return {tick % 4: lesson(tick // PERIOD)} if tick % 3 == 0 else {}


@pytest.mark.parametrize("lessons", [all_the_same, each_its_own, two_of_each, now_and_then])
def test_no_action_is_carried_out_and_the_verdict_is_healthy_when_agents_learn(
    lessons: Callable[[int], Mapping[int, planted.Lesson]],
) -> None:
    agents = planted.Agents(hierarchy.LoRAHierarchy(FRAME), 4, seed=1)
    verdicts: collections.Counter[str] = collections.Counter()
    unwell: collections.Counter[str] = collections.Counter()
    moved = 0
    for tick in range(TICKS):
        # A circuit of one channel a module has 264 parameters; the channel gives 10 a tick.
        report, _ = agents.tick(lessons(tick), channels=1 if tick % 30 == 15 else 0)
        verdicts[report.verdict.value] += 1
        unwell.update(found.message for found in report.findings if found.message)
        assert report.actions == (), unwell
        moved += sum(one.startswith("agent") for one in report.moved)
    assert verdicts["healthy"] >= 0.95 * TICKS, unwell
    assert moved > 2


def test_conflict_of_an_agent_that_unlearns_what_others_learn_is_found_and_acted_on() -> None:
    agents = planted.Agents(hierarchy.LoRAHierarchy(FRAME), 3, seed=1)
    contrary = {path: -pattern for path, pattern in DOMAINS[0].items()}
    lessons = dict.fromkeys(range(2), lesson(0)) | {2: planted.Lesson(contrary, 0.5, 4)}
    found = []
    for _ in range(110):
        report, _ = agents.tick(lessons)
        found += [(done.remedy, done.level) for done in report.actions]
    [conflicts] = [one for one in report.findings if one.aspect is health.Aspect.CONFLICTS]
    assert conflicts.verdict is health.Verdict.WARNING and conflicts.value > 0.2
    assert found == [(health.Remedy.LOWER_THRESHOLD, Level.SWARM)]
