"""The last stage of a tick: what health is told, and how its corrective actions are carried out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from services.hierarchy import health, health_record
from shared.hierarchy import messages

if TYPE_CHECKING:
    from services.hierarchy import tick

_log = structlog.get_logger(__name__)


def check(work: tick.Work) -> None:
    """Measures, judges, and carries out what is to be done."""
    state = work.state
    report = state.monitor.report(measurements(work))
    work.report = report
    for action in report.actions:
        _carry_out(work, action)
        reason = action.reason or "its entropy is healthy again"
        done = health_record.Done(state.ticks + 1, action.remedy, action.level, reason)
        state.actions.note(done)
        work.actions.append(done)


def measurements(work: tick.Work) -> health.Measurements:
    """What health is told of a tick."""
    state = work.state
    queues = state.coordinator.stats.values()
    marks = [said.mark for said in work.vertical.values()]
    return health.Measurements(
        entropy_ratios={level: found.ratio for level, found in work.homeostasis.items()},
        queue_depth=max(stats.hopeless for stats in queues),
        queue_wait_ticks=max(stats.late_ticks for stats in queues),
        offered=work.offered_circuits,
        rejected=work.placeless_circuits,
        rounds=len(marks),
        fast_tracked=marks.count(messages.Mark.FAST_TRACK),
        conflicts=marks.count(messages.Mark.CONFLICT),
        signal=work.horizontal.signal
        if work.horizontal and len(work.horizontal.alignments) > 1
        else None,
        can_roll_back=True,
    )


def _carry_out(work: tick.Work, action: health.Action) -> None:
    state, own = work.state, work.state.layers[action.level]
    match action.remedy:
        case health.Remedy.FREEZE:
            own.frozen = True
        case health.Remedy.THAW:
            own.frozen = action.level in state.frozen_by_hand
        case health.Remedy.ROLL_BACK:
            back_to = state.roll_back(of=[action.level])
            work.rolled_back.add(action.level)
            _log.warning("rolled back", level=action.level.value, version=back_to)
        case health.Remedy.RAISE_THRESHOLD | health.Remedy.LOWER_THRESHOLD:
            own.threshold += action.step
