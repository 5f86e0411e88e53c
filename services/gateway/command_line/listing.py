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
    table = rich.table.Table("name", "version", "digest", "size", "domain", "created", "aliases")
    for card in cards:
        table.add_row(
            terminal.escape(card.name),
            card.version,
            card.digest[:DIGEST_SHOWN],
            terminal.size(card.size_bytes),
            terminal.escape(card.domain),
            terminal.moment(card.created_at_ms),
            terminal.escape(", ".join(card.aliases)),
        )
    return table


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
    table = rich.table.Table(
        "id", "status", "progress", "what", "card or detail", "teachers", "created"
    )
    for task in tasks:
        result = task.error or task.card.partition("@")[0] or task.detail
        table.add_row(
            terminal.escape(task.id),
            task.status,
            f"{task.progress:.0%}",
            terminal.escape(task.trigger_query),
            terminal.escape(result),
            str(task.spent),
            terminal.moment(task.created_at_ms),
        )
    return table


async def nightly(as_json: bool) -> None:
    """Starts now what waits for the night, and prints how it is learned."""
    # One key for all attempts: a factory that restarts in between gathers once.
    key = uuid.uuid4().hex
    found = await reaching.asked(lambda services: services.factory.run_nightly(key))
    if as_json:
        terminal.print_json(found)
        return
    table = rich.table.Table("learned by task", "with", "domain", "teacher", "base")
    for skill in found:
        leader, *others = skill.task_ids
        table.add_row(
            leader,
            ", ".join(others),
            terminal.escape(skill.domain),
            terminal.escape(skill.teacher or "the first one configured"),
            terminal.escape(skill.base),
        )
    terminal.RESULT.print(table if found else "nothing waits for the night")
