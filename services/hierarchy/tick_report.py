"""What a tick did, for health, metrics and the log; no part of the state."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import structlog

from services.hierarchy import health, health_record
from shared.hierarchy import homeostasis, messages
from shared.hierarchy.levels import Level

if TYPE_CHECKING:
    from services.hierarchy import tick

_log = structlog.get_logger(__name__)


class Stopwatch:
    """How long each stage took."""

    def __init__(self, at: Callable[[str], None] = lambda point: None) -> None:
        """Starts; `at` is called with the name of each stage that has ended."""
        self._at = at
        self._last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def ended(self, stage: str) -> None:
        """A stage has ended."""
        now = time.perf_counter()
        self.seconds[stage], self._last = now - self._last, now
        self._at(stage)


@dataclasses.dataclass(frozen=True)
class TickReport:
    """Of one tick."""

    tick: int
    version: int
    """Of the newest snapshot after it."""
    submissions: int
    """Settled, those that were refused included."""
    refused: Mapping[str, str]
    """By agent, why its changes of the swarm were not taken."""
    marks: Mapping[messages.Mark, int]
    """Agents by what vertical resonance says of them."""
    alignments: Mapping[str, float]
    """By agent, with the other agents."""
    amplified: tuple[str, ...]
    damped: tuple[str, ...]
    homeostasis: Mapping[Level, homeostasis.Homeostasis]
    """As measured when the tick began."""
    moved: tuple[str, ...]
    """Circuits that went one level up."""
    rejected_circuits: int
    waiting_circuits: int
    verdict: health.Verdict
    findings: tuple[health.Finding, ...]
    actions: tuple[health_record.Done, ...]
    """Corrective ones that were carried out."""
    seconds: Mapping[str, float]
    """By stage."""

    def log(self) -> None:
        """One line, for ticks in which something happened."""
        if self.submissions or self.moved or self.actions:
            _log.info(
                "tick",
                tick=self.tick,
                version=self.version,
                submissions=self.submissions,
                moved=len(self.moved),
                verdict=self.verdict.value,
                actions=[done.remedy.value for done in self.actions],
                seconds=round(sum(self.seconds.values()), 4),
            )


def of(work: tick.Work, clock: Stopwatch) -> TickReport:
    """The report of a tick that has ended."""
    marks = [said.mark for said in work.vertical.values()]
    return TickReport(
        tick=work.state.ticks,
        version=work.state.version,
        submissions=len(work.gathered.submissions) + len(work.culprits.submissions),
        refused={agent: reason for (agent, _), reason in work.refused.items()},
        marks={mark: marks.count(mark) for mark in messages.Mark},
        alignments=dict(work.horizontal.alignments) if work.horizontal else {},
        amplified=work.horizontal.amplified if work.horizontal else (),
        damped=work.horizontal.damped if work.horizontal else (),
        homeostasis=dict(work.homeostasis),
        moved=tuple(circuit.id for circuit in work.moved),
        rejected_circuits=work.rejected_circuits,
        waiting_circuits=len(work.state.coordinator.waiting),
        verdict=work.report.verdict if work.report else health.Verdict.HEALTHY,
        findings=work.report.findings if work.report else (),
        actions=tuple(work.actions),
        seconds=dict(clock.seconds),
    )
