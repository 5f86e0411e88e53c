"""Ask and watch: the question, its route, the task as it moves, the answer before and after."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from nicegui import ui

from services.gateway import domain
from services.gateway.console import desk as desks
from services.gateway.console import frame, live, parts, route_panel, tracker, wording
from shared import errors

_FIND_S = 60.0
"""A question about something new waits that long for its task: the factory gathers first."""
_CARDS_EXPLAINED = 2
_LONGEST_QUESTION = 8000
_OFF = "Learning from questions is switched off here (router.learn_from_questions)."
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


class _Panel:
    """One answer."""

    def __init__(self, title: str, classes: str = "") -> None:
        with parts.block("section", f"panel answer {classes}", aria_label=title) as self.panel:
            with parts.block("div", "answer-head"):
                self._title = parts.Text("h2", title)
                self._who = parts.block("span", "row")
            self._text = parts.Text("p", "", "answer-text waiting", aria_live="off")
            self._about = parts.Text("p", "", "muted")
            self.notice = live.Notice()

    def name(self, title: str) -> None:
        """Changes the heading."""
        self._title.text = title
        self.panel.props["aria-label"] = title

    def write(self, text: str) -> None:
        """Shows what came so far."""
        self._text.text = text

    def settle(self, answer: domain.Answer) -> None:
        """Shows the whole answer and who gave it."""
        self._text.text = answer.text
        self.stop()
        with self._who:
            if answer.card:
                name = wording.card_name(answer.card)
                parts.link(name, f"{frame.PREFIX}/cards/{name}")
                parts.chip("skill card", "good")
            else:
                parts.chip("bare base model", "plain")
        told = [f"confidence {answer.confidence:.2f}"]
        if answer.rewritten_query:
            told.append(f"read as “{answer.rewritten_query}”")
        if len(answer.shares) > 1:
            told.append("merged from " + ", ".join(wording.card(one) for one, _ in answer.shares))
        if answer.node:
            told.append(f"on {answer.node}")
        self._about.text = " · ".join(told)

    def stop(self) -> None:
        """Nothing more comes."""
        self._text.classes(remove="waiting")


@dataclasses.dataclass(frozen=True)
class _Shown:
    """What stands below the form for one question."""

    before: _Panel
    answers: ui.element
    """Where the first answer stands, and the second will."""
    route: ui.element
    why: ui.element
    """Within the route: its explanation."""
    later: ui.element
    """What comes when something is learned."""


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
                before = _Panel("Answer")
                route = parts.section("Route", "Which card the question goes to, and why.")
                with route:
                    why = parts.block("div", "stack")
            later = parts.block("div", "stack wide")
        shown = _Shown(before, answers, route, why, later)
        self._work.start(self._follow(str(question), bool(learn), shown))

    async def _follow(self, question: str, learn: bool, shown: _Shown) -> None:
        explaining = self._explained(question, shown.why)
        answer, _ = await asyncio.gather(self._answered(question, learn, shown.before), explaining)
        if answer is None or not (answer.dissonance and learn):
            return
        shown.before.name("Answer before")
        with shown.later, parts.section("Learning task"):
            about = parts.Text("p", "No card knew this. Looking for its learning task …", "muted")
            place = parts.block("div", "stack")
            notice = live.Notice()
        task, reason = await self._task(answer)
        if task is None:
            about.text = reason
            return
        about.text = ""
        with place:
            link = f"{frame.PREFIX}/tasks/{task.id}"
            moving = tracker.Tracker()
            moving.show(task)
            parts.link("All about this task", link)
        try:
            with self._desk.session.acting():
                ended = await self._desk.peers.factory.until_ended(task.id, moving.show)
        except errors.SkillmeshError as error:
            notice.trouble(error, "factory")
            return
        moving.show(ended)
        if ended.status != domain.COMPLETED:
            return
        # Beside the first one, where the route stood; that goes down.
        shown.route.move(shown.later)
        with shown.answers:
            after = _Panel("Answer after", "after")
        await asyncio.gather(
            self._answered(question, False, after), self._explained(question, shown.why)
        )

    async def _answered(self, question: str, learn: bool, panel: _Panel) -> domain.Answer | None:
        asked = domain.Conversation(
            messages=(domain.Message("user", question),), no_learning=not learn
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
                        who = wording.card_name(piece.final.card) or "the bare base model"
                        self._said.text = f"{who} answers: {piece.final.text}"
                        return piece.final
        except errors.SkillmeshError as error:
            panel.notice.trouble(error, "inference node")
        finally:
            await pieces.aclose()
        panel.stop()
        return None

    async def _explained(self, question: str, place: ui.element) -> None:
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
            return None, _OFF
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
