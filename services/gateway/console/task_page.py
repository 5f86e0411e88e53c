"""One learning task: its stages as they go, its questions, what each stage took and cost."""

from __future__ import annotations

import asyncio

from nicegui import ui

from services.gateway import domain
from services.gateway.console import desk as desks
from services.gateway.console import frame, live, parts, task_actions, tracker, wording
from shared import errors

_AGAIN_S = 2.0
_STAGES = {
    "detect": "Detect",
    "distil": "Distil",
    "train": "Train",
    "prove": "Prove",
    "publish": "Publish",
    "confirm": "Confirm",
}


def build(desk: desks.Desk, path: dict[str, str]) -> None:
    """Builds the page."""
    _TaskPage(desk, path["task_id"])


class _TaskPage:
    """The page's state."""

    def __init__(self, desk: desks.Desk, task_id: str) -> None:
        self._desk, self._id = desk, task_id
        self._shown: domain.Task | None = None
        self._work = live.Work()
        frame.way_back("All tasks", "/tasks")
        with parts.block("div", "page-head"):
            with parts.block("div"):
                self._title = parts.Text("h1", "Learning task")
                self._about = parts.Text("p", task_id, "mono")
            self._buttons = parts.block("div", "row")
        self._notice = live.Notice()
        self._body = parts.block("div", "stack wide")
        with self._body:
            with parts.section("Progress") as self._panel:
                self._tracker = tracker.Tracker()
            self._facts = parts.block("div", "pair")
        self._body.set_visibility(False)
        ui.timer(0, lambda: self._work.start(self._follow()), once=True)

    async def _follow(self) -> None:
        while not await self._followed():
            await asyncio.sleep(_AGAIN_S)

    async def _followed(self) -> bool:
        """Follows the task; whether to its end, or to where it makes no sense to go on."""
        factory = self._desk.peers.factory
        try:
            with self._desk.session.acting():
                self._show(await factory.task(self._id))
                self._notice.clear()
                self._show(await factory.until_ended(self._id, self._show))
        except errors.NotFoundError:
            self._notice.say("There is no such task.", "It may have been removed; see all tasks.")
        except errors.SkillmeshError as error:
            self._notice.trouble(error, "factory", again=error.retryable)
            return not error.retryable
        return True

    def _show(self, task: domain.Task) -> None:
        before, self._shown = self._shown, task
        self._body.set_visibility(True)
        self._tracker.show(task)
        if before is None:
            self._title.text = task.trigger_query or task.repository or self._title.text
        if before is None or before.status != task.status:
            self._buttons.clear()
            with self._buttons:
                task_actions.buttons(self._desk, task, self._notice)
        if before is None or _kept(before) != _kept(task):
            self._facts.clear()
            with self._facts:
                self._show_facts(task)

    def _show_facts(self, task: domain.Task) -> None:
        with parts.section("About it"):
            parts.facts(
                [
                    ("Started", wording.moment(task.created_at_ms)),
                    ("Subject", task.domain),
                    ("Priority", f"{task.priority} of 5"),
                    ("Teachers", str(task.spent)),
                    ("Code base", task.repository),
                    ("Commit", task.commit_id[:12]),
                ]
            )
            if task.card:
                to = f"{frame.PREFIX}/cards/{wording.card_name(task.card)}"
                parts.link(f"Card {wording.card(task.card)}", to)
            for words, other in (
                ("The task that it tries again", task.retry_of),
                ("The task that learns its questions", task.joined_into),
            ):
                if other:
                    parts.link(words, f"{frame.PREFIX}/tasks/{other}")
            if task.other_queries:
                parts.Text("h3", "Further questions about the same gap")
                with parts.block("ul", "lines"):
                    for one in task.other_queries:
                        parts.Text("li", one)
        with parts.section("Time"):
            if not task.stage_times:
                parts.Text("p", "No stage is done yet.", "muted")
                return
            whole_s = sum(one.seconds for one in task.stage_times)
            so_far = "in all" if task.ended else "so far, without the stage that runs"
            parts.Text("p", f"{wording.duration(whole_s)} {so_far}", "muted")
            with parts.block("div", "bars"):
                for time in task.stage_times:
                    name = _STAGES.get(time.stage, time.stage.capitalize())
                    took = wording.duration(time.seconds)
                    with parts.block("div", "measure"):
                        parts.Text("span", name)
                        parts.Text("strong", took)
                        parts.meter(time.seconds / max(whole_s, 1e-9), f"{name}: {took}")


def _kept(task: domain.Task) -> tuple[object, ...]:
    """What the facts show of it."""
    return (
        task.ended,
        task.card,
        task.spent,
        task.stage_times,
        task.other_queries,
        task.joined_into,
    )
