"""`make bench area=loop`: the whole learning loop, in real clusters, over documents and seeds.

Each document gets a cluster of its own, empty but for that document, and the exam that `make demo`
holds. The documents in `benchmarks/held_out` were written by authors who had not seen the code.
Little was tuned on those measured here: `animal` showed that `gate_elsewhere` and the router's odds
were wrong. The others there, and those in `benchmarks/documents`, have been looked at to find
causes and are the ones to tune on.
"""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence

from benchmarks import results
from services.gateway.calls import peers
from services.gateway.cluster import cluster
from services.gateway.command_line import exam, questions
from shared import settings as config
from shared import terminal
from shared.models.embedded.recipe import conversations

_FOLDER = pathlib.Path(__file__).parent / "held_out"
SMALL = ("animal", "app_faq", "board_game", "cli_tool")
"""Documents of ten facts: the first four by name."""
LARGE = "big_1"
"""A document of thirty facts: the first by name."""
SEEDS = (0, 1)
_DELAY_QUESTIONS = 40


@dataclasses.dataclass(frozen=True)
class Run:
    """One document learned in one cluster."""

    outcome: exam.Outcome
    hijacked: int
    """Unrelated questions that a card answered."""
    unrelated: int
    delays: tuple[tuple[float, float], ...]
    """Seconds to the same question's answer: without an event, with one."""


def measure() -> list[results.Row]:
    """Runs everything; takes most of an hour on two cores."""
    small = [_run(name, seed) for name in SMALL for seed in SEEDS]
    large = _run(LARGE, SEEDS[0])
    return rows(small, large)


def rows(small: Sequence[Run], large: Run) -> list[results.Row]:
    """The figures of the area."""
    runs = [*small, large]
    known = [one for run in runs for one in run.outcome.known]
    before = sum(one.right_before for one in known)
    delays = [pair for run in runs for pair in run.delays]
    cards = [card for run in small for card in run.outcome.cards]
    return [
        results.Row(
            "unseen_right", _right([q for r in small for q in r.outcome.unseen]), "share", least=0.8
        ),
        results.Row(
            "unseen_right_card_alone",
            _right([q for r in small for q in r.outcome.unrewritten]),
            "share",
            note="put to the card, past the router and its rewriting",
        ),
        results.Row(
            "trained_right",
            _right([q for r in small for q in r.outcome.asked]),
            "share",
            least=0.95,
        ),
        results.Row("unseen_right_30", _right(large.outcome.unseen), "share", least=0.7),
        results.Row("unseen_right_card_alone_30", _right(large.outcome.unrewritten), "share"),
        results.Row("trained_right_30", _right(large.outcome.asked), "share", least=0.95),
        results.Row(
            "known_right_after",
            sum(one.right_after for one in known) / max(1, before),
            "of before",
            least=0.95,
            note=f"{before} of {len(known)} right before",
        ),
        results.Row(
            "unrelated_hijacked",
            sum(run.hijacked for run in runs) / sum(run.unrelated for run in runs),
            "share",
            most=0.02,
        ),
        results.Row(
            "seconds_per_skill",
            statistics.median(run.outcome.learning_s for run in small),
            "s",
            most=120,
            note=f"slowest {max(run.outcome.learning_s for run in small):.0f} s",
        ),
        results.Row("seconds_per_skill_30", large.outcome.learning_s, "s"),
        results.Row(
            "card_bytes",
            max((card.size_bytes for card in cards), default=0),
            "bytes",
            most=1_000_000,
        ),
        results.Row(
            "answer_delay",
            statistics.median(w for _, w in delays) / statistics.median(wo for wo, _ in delays),
            "times",
            most=1.05,
        ),
        results.Row(
            "wrong_before",
            1 - _share([q.right_before for r in runs for q in r.outcome.asked]),
            "share",
        ),
    ]


def _run(name: str, seed: int) -> Run:
    terminal.NOTES.print(f"loop: {name}, seed {seed}")
    chosen = questions.load(_FOLDER / f"{name}.md", _FOLDER / f"{name}.json")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="skillmesh-bench-"))
    (folder / "knowledge").mkdir()
    (folder / "knowledge" / chosen.document.name).write_text(chosen.text, encoding="utf-8")
    settings = config.load().model_copy(
        update={"evolution": config.Evolution(provider_type="documents")}
    )
    local = cluster.Cluster.private(folder, settings, {"SKILLMESH__TRAINER__SEED": str(seed)})
    try:
        local.start()
        return asyncio.run(_examine(local, chosen, folder, name))
    finally:
        local.stop()
        shutil.rmtree(folder)


async def _examine(
    local: cluster.Cluster, chosen: questions.Exam, folder: pathlib.Path, name: str
) -> Run:
    async with peers.connected(local.settings) as services:
        outcome = await exam.hold(services, chosen, local.settings, folder / "cards")
        unrelated = _unrelated(name)
        hijacked = 0
        for question in unrelated:
            hijacked += bool((await services.inference.ask(question, no_learning=True)).card)
        delays = await _delays(services)
    terminal.NOTES.print(
        f"  trained {_right(outcome.asked):.0%}, unseen {_right(outcome.unseen):.0%} "
        f"(card alone {_right(outcome.unrewritten):.0%}), "
        f"hijacked {hijacked} of {len(unrelated)}, {outcome.learning_s:.0f} s, "
        f"{[task.error for task in outcome.tasks if task.error] or 'no errors'}",
        markup=False,
    )
    return Run(outcome, hijacked, len(unrelated), delays)


async def _delays(services: peers.Peers) -> tuple[tuple[float, float], ...]:
    """Times pairs of calls in turn, so that a drifting machine weighs on both alike."""
    found = []
    for number in range(_DELAY_QUESTIONS):
        text = f"What is the colour of the {number + 2}th door of the Ambervale depot?"
        seconds = {}
        for no_learning in (True, False) if number % 2 else (False, True):
            started = time.perf_counter()
            await services.inference.ask(text, no_learning=no_learning)
            seconds[no_learning] = time.perf_counter() - started
        found.append((seconds[True], seconds[False]))
    return tuple(found)


def _unrelated(name: str) -> list[str]:
    """General questions, and those about the other documents."""
    others = [
        fact.ask
        for path in sorted(_FOLDER.glob("*.json"))
        if path.stem != name
        for fact in questions.read_facts(path)
    ]
    return [fact.questions[0] for fact in conversations.known_facts()] + others


def _right(asked: Sequence[exam.Question]) -> float:
    return _share([question.right_after for question in asked])


def _share(right: Sequence[bool]) -> float:
    return sum(right) / len(right)
