"""What a log is told of what is followed."""

from __future__ import annotations

import io

import rich.console

from services.gateway.command_line import following


def test_log_gets_a_line_when_a_stage_begins_and_now_and_then_how_far_it_is() -> None:
    log, times = io.StringIO(), [0.0]
    console = rich.console.Console(file=log, width=80)
    with following.Bars(console, lambda: times[-1]) as bars:
        for at_s, share, stage, detail in (
            (0.0, 0.2, "training", "preparing"),
            (5.0, 0.3, "training", "step 10"),
            (16.0, 0.4, "training", "step 40, loss 0.5 [a]"),
            (17.0, 0.4, "training", "step 41"),
            (18.0, 0.6, "evaluating", ""),
            (40.0, 0.7, "evaluating", ""),
        ):
            times.append(at_s)
            bars.show("task t", share, stage, detail)
        bars.show("task u", 0.0, "pending")
    assert log.getvalue().splitlines() == [
        "task t: training",
        "task t: training, 40 %, step 40, loss 0.5 [a]",
        "task t: evaluating",
        "task t: evaluating, 70 %",
        "task u: pending",
    ]
