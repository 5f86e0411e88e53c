"""Ask and watch: the question, its route, the task as it moves, the answer before and after."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from nicegui import ui

from services.gateway import domain
from services.gateway.console import (
    answer_panel,
    frame,
    judging,
    live,
    parts,
    route_panel,
    tracker,
    wording,
)
from services.gateway.console import desk as desks
from shared import errors

_FIND_S = 60.0
"""A question about something new waits that long for its task: the factory gathers first."""
_CARDS_EXPLAINED = 2
_LONGEST_QUESTION = 8000
_NOT_LEARNED = (
    "Nothing is learned from it: learning is switched off here (router.learn_from_questions), or "
    "somebody else's card answers it."
)
_HOW = (
    (
        "It answers at once",
        "The router looks for a card. Where none fits, the base model answers.",
    ),
    ("It learns meanwhile", "A teacher gives questions and answers; a small adapter learns them."),
    ("It answers again", "The card has passed its exam, and the same question is put to it."),
)


def build(desk: desks.Desk, path: dict[str, str]) -> None:
    """Builds the page."""
    frame.head("Ask", "What no card knows is learned while you watch, and asked again.")
    _Asking(desk)


@dataclasses.dataclass
class _Shown:
    """What stands below the form for one question."""

    question: str
    panels: list[answer_panel.Panel]
    """The first answer, and the one after it was learned."""
    answers: ui.element
    """Where they stand."""
    route: ui.element
    why: ui.element
    """Within the route: its explanation."""
    learning: ui.element
    """The task, when something is learned."""
    later: ui.element
    """Where the route goes when a second answer takes its place."""


class _Asking:
    """The page's state: one question at a time."""

    def __init__(self, desk: desks.Desk) -> None:
        self._desk = desk
        self._work = live.Work()
        self._form()
        # Answers are read out whole, once, not word by word.
        self._said = parts.Text("p", "", "unseen", role="status", aria_live="polite")
        self._found = parts.block("div", "stack found")
        with self._found:
            _explain()

    def _form(self) -> None:
        with parts.block("form", "panel") as form:
            form.on(
                "submit",
                self._ask,
                js_handler="""(event) => {
                    event.preventDefault();
                    const given = new FormData(event.target);
                    if (given.get("question").trim())
                        emit(given.get("question").trim(), given.get("learn") !== null);
                }""",
            )
            with parts.block("div", "field"):
                parts.Text("label", "Your question", for_="question")
                parts.block(
                    "textarea",
                    "input",
                    id="question",
                    name="question",
                    rows="2",
                    required=True,
                    maxlength=str(_LONGEST_QUESTION),
                    data_enter="",
                    autofocus=True,
                    placeholder="Ask something that only your documents know",
                )
            with parts.block("div", "row between"):
                with parts.block("label", "check"):
                    parts.block("input", type="checkbox", name="learn", checked=True)
                    parts.Text("span", "Learn what it does not know")
                parts.button("Ask", None, "primary", type="submit")

    def _ask(self, event: Any) -> None:
        question, learn = event.args
        self._found.clear()
        self._said.text = ""
        with self._found:
            with parts.block("div", "pair") as answers:
                before = answer_panel.Panel("Answer")
                route = parts.section("Route", "Which card the question goes to, and why.")
                with route:
                    why = parts.block("div", "stack")
            learning = parts.block("div", "stack wide")
            later = parts.block("div", "stack wide")
        shown = _Shown(str(question), [before], answers, route, why, learning, later)
        self._work.start(self._follow(bool(learn), shown))

    async def _follow(self, learn: bool, shown: _Shown) -> None:
        before = shown.panels[0]
        answer, _ = await asyncio.gather(
            self._answered(learn, before, shown), self._explained(shown)
        )
        if answer is None or not (answer.dissonance and learn):
            return
        before.name("Answer before")
        with shown.learning, parts.section("Learning task"):
            about = parts.Text("p", "No card knew this. Looking for its learning task …", "muted")
            place = parts.block("div", "stack")
        task, reason = await self._task(answer)
        about.text = reason
        if task is None:
            before.name("Answer")
        else:
            await self._watch(task.id, place, shown)

    async def _watch(self, task_id: str, place: ui.element, shown: _Shown) -> None:
        """Follows a task to its end; puts the question again when it was learned."""
        factory = self._desk.peers.factory
        with place:
            moving = tracker.Tracker()
            parts.link("All about this task", f"{frame.PREFIX}/tasks/{task_id}")
            notice = live.Notice()
        try:
            with self._desk.session.acting():
                moving.show(await factory.task(task_id))
                ended = await factory.until_ended(task_id, moving.show)
        except errors.SkillmeshError as error:
            notice.trouble(error, "factory")
            return
        moving.show(ended)
        if ended.status != domain.COMPLETED:
            return
        # Beside the first one, where the route stood; that goes down.
        shown.route.move(shown.later)
        with shown.answers:
            after = answer_panel.Panel("Answer after", "after")
        shown.panels.append(after)
        await asyncio.gather(self._answered(False, after, shown), self._explained(shown))

    async def _learn_judged(self, task_id: str, judged: answer_panel.Panel, shown: _Shown) -> None:
        """Follows what is learned from a judgement: that answer is the one before."""
        for panel in shown.panels:
            if panel is not judged:
                panel.panel.delete()
        shown.panels[:] = [judged]
        judged.name("Answer before")
        judged.panel.classes(remove="after")
        shown.route.move(shown.answers)
        shown.learning.clear()
        with shown.learning, parts.section("Learning task"):
            place = parts.block("div", "stack")
        await self._watch(task_id, place, shown)

    async def _answered(
        self, learn: bool, panel: answer_panel.Panel, shown: _Shown
    ) -> domain.Answer | None:
        asked = domain.Conversation(
            messages=(domain.Message("user", shown.question),), no_learning=not learn
        )
        said = ""
        pieces = self._desk.nodes.stream(asked, None)
        try:
            with self._desk.session.acting():
                async for piece in pieces:
                    said += piece.text
                    panel.write(said)
                    if piece.final is not None:
                        panel.settle(piece.final)
                        self._let_judge(piece.final, panel, shown)
                        who = wording.card_name(piece.final.card) or "the bare base model"
                        self._said.text = f"{who} answers: {piece.final.text}"
                        return piece.final
        except errors.SkillmeshError as error:
            panel.notice.trouble(error, "inference node")
        finally:
            await pieces.aclose()
        panel.stop()
        return None

    def _let_judge(self, answer: domain.Answer, panel: answer_panel.Panel, shown: _Shown) -> None:
        if not judging.may_judge(self._desk):
            return

        def follow(task_id: str) -> None:
            self._work.start(self._learn_judged(task_id, panel, shown))

        with panel.foot:
            judging.Judgement(self._desk, shown.question, answer, follow)

    async def _explained(self, shown: _Shown) -> None:
        question, place = shown.question, shown.why
        try:
            with self._desk.session.acting():
                found = await self._desk.peers.router.explain(question, _CARDS_EXPLAINED, None)
        except errors.SkillmeshError as error:
            place.clear()
            with place:
                live.Notice().trouble(error, "router")
            return
        place.clear()
        with place:
            route_panel.show(found)

    async def _task(self, answer: domain.Answer) -> tuple[domain.Task | None, str]:
        """The task that a question led to, or why there is none."""
        if not answer.event_id:
            return None, _NOT_LEARNED
        factory = self._desk.peers.factory
        with self._desk.session.acting():
            task = await factory.find_task(answer.event_id, _FIND_S)
            reason = "" if task else await factory.reason_for_no_task(answer.event_id)
        if task is None and not reason:
            reason = "No learning task came of it yet; the tasks page shows it once there is one."
        return task, reason[:1].upper() + reason[1:]


def _explain() -> None:
    """What stands below an empty form."""
    with parts.section("What will happen"), parts.block("ol", "how"):
        for title, about in _HOW:
            with parts.block("li"):
                parts.Text("h3", title)
                parts.Text("p", about, "muted")
