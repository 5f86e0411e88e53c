"""What keeps a page up to date: polling that stops with the page, and calm words about trouble."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import structlog
from nicegui import background_tasks, ui

from services.gateway.console import desk as desks
from services.gateway.console import parts, wording
from shared import errors

Told = TypeVar("Told")
Call = Callable[[], Awaitable[Any]]
"""A call that a button makes."""
_log = structlog.get_logger(__name__)


class Notice:
    """A place for what went wrong or well; empty most of the time."""

    def __init__(self) -> None:
        """Stands where it is made."""
        self._place = parts.block("div", "notice-place", role="status", aria_live="polite")
        self._said: tuple[str, str, str] | None = None

    def say(self, title: str, advice: str = "", tone: str = "bad") -> None:
        """Says something; the same again changes nothing."""
        if self._said == (title, advice, tone):
            return
        self._said = (title, advice, tone)
        self._place.clear()
        with self._place, parts.block("div", f"notice {tone}"):
            parts.Text("strong", title)
            if advice:
                parts.Text("span", advice)

    def trouble(self, error: errors.SkillmeshError, service: str, again: bool = False) -> None:
        """Says what is wrong and what to do; `again` where the page tries it again by itself."""
        self.say(*wording.trouble(error, service, again))

    def clear(self) -> None:
        """Nothing is wrong any more."""
        if self._said is not None:
            self._said = None
            self._place.clear()


def follow(
    desk: desks.Desk,
    every_s: float,
    service: str,
    fetch: Callable[[], Awaitable[Told]],
    show: Callable[[Told], None],
    notice: Notice,
) -> ui.timer:
    """Fetches and shows what is new, again and again while the page is there.

    Args:
        desk: whose calls they are.
        every_s: pause between two.
        service: who is asked, for people.
        fetch: asks.
        show: is told only what differs from before.
        notice: where trouble is said; what was shown stays.
    """
    before: list[Told] = []

    async def look() -> None:
        try:
            with desk.session.acting():
                told = await fetch()
        except errors.SkillmeshError as error:
            notice.trouble(error, service, again=True)
            return
        notice.clear()
        if before != [told]:
            before[:] = [told]
            show(told)

    return ui.timer(every_s, look)


async def attempt(desk: desks.Desk, service: str, notice: Notice, call: Call) -> bool:
    """Makes one call that somebody asked for; says what is wrong where it fails."""
    try:
        with desk.session.acting():
            await call()
    except errors.SkillmeshError as error:
        notice.trouble(error, service)
        return False
    return True


class Work:
    """One thing at a time that a page does in the background; ends with the page."""

    def __init__(self) -> None:
        """Begins with nothing."""
        self._task: asyncio.Task[Any] | None = None
        ui.context.client.on_delete(self.stop)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Does this instead of what it did before."""
        self.stop()
        self._task = background_tasks.create(work, name="console")

    def stop(self) -> None:
        """Ends what is being done."""
        if self._task is not None and not self._task.done():
            self._task.cancel()


async def confirmed(title: str, about: str, do: str, danger: bool = False, reason: str = "") -> Any:
    """Asks whether something shall be done.

    Args:
        title: the question.
        about: what will happen.
        do: the words on the button.
        danger: whether it can't be taken back.
        reason: the label of a field for words; empty for none.

    Returns:
        The words of the field, or True without one; None where nothing shall be done.
    """
    typed: dict[str, str] = {"words": ""}
    with ui.dialog().props(f'aria-label="{title}"') as dialog, parts.block("div", "dialog"):
        parts.Text("h2", title)
        parts.Text("p", about)
        if reason:
            with parts.block("label", "field"):
                parts.Text("span", reason)
                box = parts.block("input", "input", type="text", autofocus=True)
                box.on(
                    "input",
                    lambda event: typed.update(words=str(event.args)),
                    js_handler="(e) => emit(e.target.value)",
                )
        with parts.block("div", "dialog-buttons"):
            parts.button("Keep as it is", lambda: dialog.submit(None), "quiet")
            kind = "danger" if danger else "primary"
            parts.button(
                do, lambda: dialog.submit(typed["words"].strip() if reason else True), kind
            )
    with contextlib.suppress(asyncio.CancelledError):
        answer = await dialog
        dialog.delete()
        return answer
    return None
