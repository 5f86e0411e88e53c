"""The router: how far its probabilities can be believed, its threshold, what it did not know."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from services.gateway import domain
from services.gateway.console import charts, frame, live, parts, route_panel, wording
from services.gateway.console import desk as desks
from shared import errors

_EVERY_S = 3.0
_RECENT = 8
_GOOD, _FAIR = 0.05, 0.1
"""Calibration errors up to which one may rely on it, or nearly."""


@dataclasses.dataclass(frozen=True)
class _Told:
    router: domain.Router
    gaps: tuple[domain.Task, ...]
    """The newest tasks that the router caused; empty where the factory does not answer, too."""


def build(desk: desks.Desk, path: dict[str, str]) -> None:
    """Builds the page."""
    frame.head("Router", "Which card fits a question, how sure that is, and when none does.")
    notice = live.Notice()
    with parts.block("div", "figures"):
        cards, threshold = parts.Figure("Cards"), parts.Figure("Threshold")
        error, events = parts.Figure("Calibration error"), parts.Figure("Gaps told")
    with parts.section(
        "Can its probabilities be believed?",
        "Asked in turn without each part of what it knows. A dot on the diagonal: what it called "
        "likely in seven of ten cases came true in seven of ten. Larger dots weigh more.",
    ):
        diagram = parts.block("div")
    _try_it(desk)
    with parts.section("Recent gaps", "What no card fitted, and what came of it."):
        table = _gaps()
        no_gaps = parts.block("div")

    def show(told: _Told) -> None:
        router = told.router
        cards.show(f"{router.cards:,}", f"revision {router.revision:,} of the store")
        threshold.show(f"{router.threshold:.2f}", "below it a question is a gap")
        _show_error(error, router)
        dropped = f", {router.events_dropped} dropped" if router.events_dropped else ""
        waiting = f"{router.events_waiting} waiting{dropped}"
        events.show(f"{router.events_delivered:,}", waiting, "warn" if dropped else "")
        diagram.clear()
        with diagram:
            _show_bins(router)
        table.show({task.id: task for task in told.gaps})
        no_gaps.clear()
        if not told.gaps:
            with no_gaps:
                parts.empty(
                    "No gap yet",
                    "Ask something that no card knows, and it stands here.",
                    f"{frame.PREFIX}/",
                    "Ask a question",
                )

    async def fetch() -> _Told:
        router = await desk.peers.router.status()
        try:
            tasks = await desk.peers.factory.tasks()
        except errors.SkillmeshError:
            tasks = []
        return _Told(router, tuple(domain.gaps(tasks)[:_RECENT]))

    live.follow(desk, _EVERY_S, "router", fetch, show, notice)


def _show_error(figure: parts.Figure, router: domain.Router) -> None:
    found = router.calibration_error
    if found is None:
        figure.show("–", "measured once there are cards")
        return
    tone = "good" if found <= _GOOD else "warn" if found <= _FAIR else "bad"
    verdict = {"good": "good", "warn": "fair", "bad": "far off"}[tone]
    figure.show(f"{found:.3f}", f"{verdict}, {router.calibration_rows:,} questions", tone)


def _show_bins(router: domain.Router) -> None:
    if not router.bins:
        parts.empty(
            "Nothing to measure yet",
            "The diagram is drawn once the router knows a card; ask or teach something first.",
            f"{frame.PREFIX}/",
            "Ask a question",
        )
        return
    with parts.block("div", "diagram"):
        with parts.block("figure"):
            charts.reliability(router.bins, router.threshold)
        table = _bins()
        table.show({str(place): one for place, one in enumerate(_told_apart(router.bins))})


def _told_apart(bins: Sequence[domain.Bin]) -> list[domain.Bin]:
    """The bins in their order; those that read alike are one, with the weight of all."""
    found: dict[tuple[str, str], domain.Bin] = {}
    for one in bins:
        key = wording.share(one.probability), wording.share(one.share)
        mass = one.mass + (found[key].mass if key in found else 0.0)
        found[key] = dataclasses.replace(found.get(key, one), mass=mass)
    return list(found.values())


def _bins() -> parts.Table[domain.Bin]:
    def row(one: domain.Bin) -> None:
        table.cell(wording.share(one.probability))
        table.cell(wording.share(one.share))
        table.cell(wording.share(one.mass))

    table = parts.Table[domain.Bin](
        "Probabilities told and how often they came true",
        (
            parts.Column("Told", "number"),
            parts.Column("Came true", "number"),
            parts.Column("Weight", "number"),
        ),
        row,
        compact=True,
    )
    return table


def _try_it(desk: desks.Desk) -> None:
    """A question that is only routed: nothing is answered or learned."""
    with parts.section("Try a question", "It is only routed: nothing is answered or learned."):
        with parts.block("form", "stack") as form, parts.block("div", "row"):
            parts.block(
                "input",
                "input search",
                type="text",
                name="question",
                required=True,
                maxlength="8000",
                aria_label="Question to route",
                placeholder="A question",
            )
            parts.button("Explain", None, "", type="submit")
        notice = live.Notice()
        place = parts.block("div", "stack", aria_live="polite")

    async def explain(event: Any) -> None:
        found: list[dict[str, Any]] = []

        async def call() -> None:
            found.append(await desk.peers.router.explain(str(event.args), 2, None))

        if await live.attempt(desk, "router", notice, call):
            notice.clear()
            place.clear()
            with place:
                route_panel.show(found[0])

    form.on(
        "submit",
        explain,
        js_handler="""(event) => {
            event.preventDefault();
            const given = new FormData(event.target).get("question").trim();
            if (given) emit(given);
        }""",
    )


def _gaps() -> parts.Table[domain.Task]:
    def row(task: domain.Task) -> None:
        with table.cell(classes="lead"):
            question = task.trigger_query or task.repository
            parts.link(question, f"{frame.PREFIX}/tasks/{task.id}", "link clip")
        table.cell(task.domain, "" if task.domain else "none")
        with table.cell():
            parts.chip(wording.status(task.status), wording.tone(task.status))
        with table.cell():
            parts.moment(task.created_at_ms)

    table = parts.Table[domain.Task](
        "The newest gaps",
        (
            parts.Column("Question"),
            parts.Column("Subject"),
            parts.Column("Became", "nowrap"),
            parts.Column("When", "number"),
        ),
        row,
    )
    return table
