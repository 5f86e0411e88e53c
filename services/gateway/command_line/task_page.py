"""`tasks show`, `tasks cancel`, `tasks retry` and `tasks --watch`."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import uuid

import rich.live
import rich.table

from services.gateway import domain
from services.gateway.calls import peers
from services.gateway.command_line import asking, following, listing, reaching
from shared import settings as config
from shared import terminal

_EVERY_S = 1.0


async def show(task_id: str, as_json: bool) -> None:
    """Prints one task with everything that is known of it."""
    task = await reaching.asked(lambda services: services.factory.task(checked(task_id)))
    if as_json:
        terminal.print_json(task)
        return
    rows = {
        "task": task.id,
        "status": f"{task.status}, {task.progress:.0%} of it" if not task.ended else task.status,
        "what": task.trigger_query,
        "also": "\n".join(task.other_queries),
        "code base": f"{task.repository} {task.commit_id}".strip(),
        "domain": task.domain,
        "priority": str(task.priority),
        "card": task.card,
        "error": task.error,
        "detail": task.detail,
        "stages": "\n".join(f"{time.stage} {time.seconds:.1f} s" for time in task.stage_times),
        "teachers": str(task.spent),
        "learned by": task.joined_into,
        "again for": task.retry_of,
        "created": terminal.moment(task.created_at_ms),
        "changed": terminal.moment(task.updated_at_ms),
    }
    table = rich.table.Table.grid(padding=(0, 2))
    for name, value in rows.items():
        if value:
            table.add_row(name, terminal.escape(value))
    terminal.RESULT.print(table)


async def cancel(task_id: str, as_json: bool) -> None:
    """Ends a task before its time."""
    task = await reaching.asked(lambda services: services.factory.cancel(checked(task_id)))
    _tell(task, as_json)


async def retry(task_id: str, wait: bool, as_json: bool) -> None:
    """Opens a task with the questions of one that failed or was cancelled.

    Raises:
        terminal.FailedError: it was waited for, and it did not end well.
    """
    key = uuid.uuid4().hex
    task = await reaching.asked(lambda services: services.factory.retry(checked(task_id), key))
    if wait:
        async with peers.connected(config.load()) as services:
            [task] = await following.until_learned(services, [task.id])
    _tell(task, as_json)
    if wait:
        asking.check(task)


async def watch(as_json: bool) -> None:
    """Shows the tasks as they change, until all have ended.

    On a terminal as a table that is drawn anew; in a pipe a line for every change, which is a JSON
    object where that is asked for.
    """
    is_drawn = terminal.RESULT.is_terminal and not as_json
    said: dict[str, domain.Task] = {}
    with rich.live.Live(console=terminal.RESULT, auto_refresh=False) as live:
        while True:
            tasks = await reaching.asked(lambda services: services.factory.tasks())
            if is_drawn:
                live.update(listing.task_table(tasks), refresh=True)
            else:
                for task in reversed(tasks):
                    if said.get(task.id) != task:
                        said[task.id] = task
                        _print_line(task, as_json)
            if all(task.ended for task in tasks):
                return
            await asyncio.sleep(_EVERY_S)


def checked(task_id: str) -> str:
    """The id of a task, as far as it can be one.

    Raises:
        terminal.UsageError: it is empty.
    """
    if not task_id.strip():
        raise terminal.UsageError("the id of a task is missing; `skillmesh tasks` lists them")
    return task_id.strip()


def _print_line(task: domain.Task, as_json: bool) -> None:
    if as_json:
        line = json.dumps(dataclasses.asdict(task), ensure_ascii=False)
    else:
        result = task.error or task.card or task.detail
        parts = (task.id, task.status, f"{task.progress:.0%}", task.trigger_query, result)
        # Whatever a question holds, a task is one line.
        line = "\t".join(" ".join(part.split()) for part in parts)
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _tell(task: domain.Task, as_json: bool) -> None:
    if as_json:
        terminal.print_json(task)
        return
    what = f"learned as {listing.short(task.card)}" if task.card else task.status.lower()
    again = f" (again for {task.retry_of})" if task.retry_of else ""
    terminal.RESULT.print(terminal.escape(f"task {task.id}{again}: {what}"), soft_wrap=True)
