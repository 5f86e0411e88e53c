"""What somebody says of an answer: right, wrong, or what is right instead.

Whoever may correct may also poison: only they see it whose role may call `GiveFeedback`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from services.gateway import domain
from services.gateway.console import desk as desks
from services.gateway.console import live, parts, wording
from shared import questions

_GIVE = "Factory/GiveFeedback"

OnTask = Callable[[str], None]
"""Told the id of the task that learns from it."""


def may_judge(desk: desks.Desk) -> bool:
    """Whether the person's role may say it."""
    return desk.session.may(_GIVE)


class Judgement:
    """Asks about one answer; stands where it is made."""

    def __init__(
        self, desk: desks.Desk, question: str, answer: domain.Answer, on_task: OnTask
    ) -> None:
        """Takes the answer, the question as it was asked, and who follows a task."""
        self._desk, self._question, self._answer, self._on_task = desk, question, answer, on_task
        self._who = wording.card_name(answer.card) or "the bare base model"
        with parts.block("div", "judgement"):
            self._place = parts.block("div")
            self._notice = live.Notice()
        self._offer()

    def _offer(self) -> None:
        self._place.clear()
        with self._place, parts.block("div", "row"):
            parts.Text("span", "Is this answer right?", "muted")
            about = f"the answer of {self._who}"
            parts.button("Right", self._praise, "small", about)
            parts.button("Wrong", self._ask_what_is_right, "small", about)

    async def _praise(self) -> None:
        if await self._say(is_right=True) is not None:
            self._settle(f"Counted as right for {self._who}.")

    def _ask_what_is_right(self) -> None:
        self._place.clear()
        with self._place, parts.block("form", "stack") as form:
            form.on(
                "submit",
                self._correct,
                js_handler="""(event) => {
                    event.preventDefault();
                    emit(new FormData(event.target).get("correction").trim());
                }""",
            )
            with parts.block("label", "field"):
                parts.Text("span", "The right answer is …")
                box = parts.block(
                    "input",
                    "input",
                    type="text",
                    name="correction",
                    maxlength=str(questions.LONGEST_TRAINED),
                    autocomplete="off",
                    placeholder="Leave it empty if you do not know it",
                )
            with parts.block("div", "row"):
                parts.button("Send", None, "small primary", type="submit")
                parts.button("Never mind", self._offer, "small quiet")
        # The button that had the focus is gone; the browser has the box a moment later.
        focus = f"setTimeout(() => document.getElementById('{box.html_id}')?.focus(), 50)"
        box.client.run_javascript(focus)

    async def _correct(self, event: Any) -> None:
        correction = str(event.args)
        taken = await self._say(correction=correction)
        if taken is None:
            return
        if not taken.task_id:
            reason = taken.reason[:1].upper() + taken.reason[1:]
            self._settle(f"Counted as wrong for {self._who}.", reason, "warn")
            return
        told = "The correction is learned below." if correction else "It is learned anew below."
        self._settle(f"Counted as wrong for {self._who}.", told)
        self._on_task(taken.task_id)

    async def _say(self, is_right: bool = False, correction: str = "") -> Any:
        """What comes of it; None where it did not get through, which is said."""
        taken: list[domain.FeedbackTaken] = []

        async def give() -> None:
            taken.append(
                await self._desk.peers.factory.feedback(
                    uuid.uuid4().hex,
                    self._question,
                    answer=self._answer.text,
                    card=self._answer.card,
                    is_right=is_right,
                    correction=correction,
                )
            )

        if not await live.attempt(self._desk, "factory", self._notice, give):
            return None
        return taken[0]

    def _settle(self, title: str, advice: str = "", tone: str = "good") -> None:
        self._place.clear()
        self._notice.say(title, advice, tone)
