"""Commands about learning tasks, as `__main__` adds them."""

from __future__ import annotations

from typing import Annotated

import typer

from services.gateway.command_line import listing, options, task_page
from shared import terminal

tasks = options.group()


@tasks.callback(invoke_without_command=True)
def list_tasks(
    context: typer.Context,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show them as they change, until all have ended.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """List the learning tasks, or show, cancel or retry one.

    JSON: a list of objects with id, trigger_query, other_queries, domain, priority, status,
    card, error, progress, detail, stage_times, created_at_ms, updated_at_ms, retry_of, spent,
    joined_into, repository, commit_id. With --watch, such an object a line for every change.
    """
    if context.invoked_subcommand is None:
        terminal.run(lambda: task_page.watch(as_json) if watch else listing.tasks(as_json))


@tasks.command()
def show(task: options.Task, as_json: options.Json = False) -> None:
    """Show a task with all that is known of it.

    JSON: the object of the list.
    """
    terminal.run(lambda: task_page.show(task, as_json))


@tasks.command()
def cancel(task: options.Task, as_json: options.Json = False) -> None:
    """End a task before its card is published.

    JSON: the object of the list.
    """
    terminal.run(lambda: task_page.cancel(task, as_json))


@tasks.command()
def retry(task: options.Task, wait: options.Wait = False, as_json: options.Json = False) -> None:
    """Open a task with the questions of one that failed or was cancelled.

    JSON: the object of the list, for the new task.
    """
    terminal.run(lambda: task_page.retry(task, wait, as_json))
