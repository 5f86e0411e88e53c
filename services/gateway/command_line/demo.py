"""`demo`: a private cluster, a document it has never seen, an exam before and after learning it."""

from __future__ import annotations

import shutil
import time

from services.gateway import domain
from services.gateway.calls import peers
from services.gateway.cluster import cluster
from services.gateway.command_line import exam, following, questions, report
from shared import settings as config
from shared import terminal

_SEED_VARIABLE = "SKILLMESH__TRAINER__SEED"
_ENOUGH = 0.5
"""Share of the asked questions that must be right after learning."""


async def run(chosen: questions.Exam, seed: int | None, keep: bool, as_json: bool) -> None:
    """Holds the exam in a cluster of its own and prints how it went.

    Args:
        chosen: document and questions.
        seed: of the training; None for the usual one.
        keep: leave the state folder where it is.
        as_json: print one JSON object.

    Raises:
        terminal.FailedError: a task failed, or too few answers are right.
    """
    settings = config.load()
    base_dir = settings.cluster.state_dir.absolute()
    state_dir = base_dir / f"demo-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 1000:03}"
    knowledge = state_dir / "knowledge"
    knowledge.mkdir(parents=True)
    (knowledge / chosen.document.name).write_text(chosen.text, encoding="utf-8")
    local = cluster.Cluster.private(
        state_dir,
        # A teacher with a key would be asked about a document that it has never seen.
        settings.model_copy(update={"evolution": config.Evolution(provider_type="documents")}),
        {} if seed is None else {_SEED_VARIABLE: str(seed)},
    )
    remove = False
    try:
        _start(local)
        async with peers.connected(local.settings) as services:
            outcome = await exam.hold(services, chosen, local.settings, base_dir / "demo-cards")
        if as_json:
            terminal.print_json(report.as_json(outcome, seed))
        else:
            report.show(outcome, terminal.RESULT)
        _judge(outcome)
        remove = not keep
    finally:
        terminal.NOTES.print("stopping the cluster of the demo")
        local.stop()
        if remove:
            shutil.rmtree(state_dir)
        else:
            terminal.NOTES.print(f"state and logs are kept in {state_dir}", markup=False)


def _start(local: cluster.Cluster) -> None:
    with following.Bars() as bars:

        def show(well: int, total: int, missing: str) -> None:
            stage = f"{well} of {total} services answer"
            bars.show("starting", well / total, stage, f"waiting for {missing}" if missing else "")

        local.start(show)


def _judge(outcome: exam.Outcome) -> None:
    for task in outcome.tasks:
        if task.status != domain.COMPLETED:
            reason = task.error or "no reason given"
            raise terminal.FailedError(f"task {task.id} is {task.status}: {reason}")
    right = sum(question.right_after for question in outcome.asked)
    if right < _ENOUGH * len(outcome.asked):
        raise terminal.FailedError(
            f"only {right} of {len(outcome.asked)} asked questions are right after learning"
        )
