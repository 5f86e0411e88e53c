"""What may be done to a learning task."""

from __future__ import annotations

from nicegui import ui

from services.gateway import domain
from services.gateway.console import desk as desks
from services.gateway.console import live, parts


def buttons(desk: desks.Desk, task: domain.Task, notice: live.Notice, small: bool = False) -> None:
    """The buttons that its state and the role allow."""
    size, about = "small" if small else "", task.trigger_query

    async def cancel() -> None:
        title, about = "Cancel this task?", "What was done so far is lost; it can be retried later."
        if await live.confirmed(title, about, "Cancel the task", danger=True):
            await live.attempt(desk, "factory", notice, lambda: desk.peers.factory.cancel(task.id))

    async def retry() -> None:
        opened: list[domain.Task] = []

        async def call() -> None:
            opened.append(await desk.peers.factory.retry(task.id))

        # It may have been pressed twice: the same key is the same new task.
        if await live.attempt(desk, "factory", notice, call):
            ui.navigate.to(f"/tasks/{opened[0].id}")

    if not task.ended and desk.session.may("Factory/CancelTask"):
        parts.button("Cancel", cancel, f"{size} quiet", about)
    if task.status in (domain.FAILED, domain.CANCELLED) and desk.session.may("Factory/RetryTask"):
        parts.button("Retry", retry, size, about)
