"""`cards`, `tasks`, `nightly`: what the running cluster holds and has to do, as tables."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import rich.table

from services.gateway import domain
from services.gateway.command_line import reaching
from shared import terminal

DIGEST_SHOWN = 12
"""Characters of a digest in tables; commands take that many, too."""


def short(card: str) -> str:
    """`name@digest` with as much of the digest as commands take; a name alone stays one."""
    name, at, digest = card.partition("@")
    return f"{name}{at}{digest[:DIGEST_SHOWN]}"


def table(*columns: str, whole: Sequence[str] = ()) -> rich.table.Table:
    """A table that cuts nothing off, which people may need for the next command.

    Args:
        columns: their headings.
        whole: those that stay on one line, however narrow the screen is.
    """
    made = rich.table.Table()
    for name in columns:
        made.add_column(name, no_wrap=name in whole, overflow="fold")
    return made


async def cards(as_json: bool) -> None:
    """Prints the latest version of every card."""
    found = await reaching.asked(lambda services: services.store.cards())
    if as_json:
        terminal.print_json(found)
        return
    nothing = "no cards yet: ask something that nobody knows"
    terminal.RESULT.print(card_table(found) if found else nothing)


def card_table(cards: Sequence[domain.Card]) -> rich.table.Table:
    """A row for each version of a card."""
    columns = ("name", "version", "digest", "size", "domain", "created", "aliases")
    made = table(*columns, whole=("name", "version", "digest", "size"))
    for card in cards:
        made.add_row(
            terminal.escape(card.name),
            card.version,
            card.digest[:DIGEST_SHOWN],
            terminal.size(card.size_bytes),
            terminal.escape(card.domain),
            terminal.moment(card.created_at_ms),
            terminal.escape(", ".join(card.aliases)),
        )
    return made


async def tasks(as_json: bool) -> None:
    """Prints all learning tasks, the newest first."""
    found = await reaching.asked(lambda services: services.factory.tasks())
    if as_json:
        terminal.print_json(found)
        return
    nothing = "no tasks yet: ask something that nobody knows"
    terminal.RESULT.print(task_table(found) if found else nothing)


def task_table(tasks: Sequence[domain.Task]) -> rich.table.Table:
    """A row for each task."""
    columns = ("id", "status", "progress", "what", "card or detail", "teachers", "created")
    made = table(*columns, whole=("id", "status"))
    for task in tasks:
        result = task.error or task.card.partition("@")[0] or task.detail
        made.add_row(
            terminal.escape(task.id),
            task.status,
            f"{task.progress:.0%}",
            terminal.escape(task.trigger_query),
            terminal.escape(result),
            str(task.spent),
            terminal.moment(task.created_at_ms),
        )
    return made


async def nightly(as_json: bool) -> None:
    """Starts now what waits for the night, and prints how it is learned."""
    # One key for all attempts: a factory that restarts in between gathers once.
    key = uuid.uuid4().hex
    found = await reaching.asked(lambda services: services.factory.run_nightly(key))
    if as_json:
        terminal.print_json(found)
        return
    columns = ("learned by task", "with", "domain", "teacher", "base")
    made = table(*columns, whole=("learned by task",))
    for skill in found:
        leader, *others = skill.task_ids
        made.add_row(
            leader,
            ", ".join(others),
            terminal.escape(skill.domain),
            terminal.escape(skill.teacher or "the first one configured"),
            terminal.escape(skill.base),
        )
    terminal.RESULT.print(made if found else "nothing waits for the night")
