"""`cards`, `tasks`, `nightly`: what the running cluster holds and has to do."""

from __future__ import annotations

import uuid

import rich.table

from services.gateway.calls import peers
from services.gateway.cluster import cluster
from shared import settings as config
from shared import terminal

_DIGEST_SHOWN = 12


async def cards(as_json: bool) -> None:
    """Prints the latest version of every card."""
    settings = config.load()
    async with peers.connected(settings) as services:
        found = await peers.while_restarting(
            services.store.cards, cluster.Cluster(settings).supervisor.alive
        )
    if as_json:
        terminal.print_json(found)
        return
    table = rich.table.Table("name", "version", "digest", "size", "domain", "created", "aliases")
    for card in found:
        table.add_row(
            terminal.escape(card.name),
            card.version,
            card.digest[:_DIGEST_SHOWN],
            terminal.size(card.size_bytes),
            terminal.escape(card.domain),
            terminal.moment(card.created_at_ms),
            terminal.escape(", ".join(card.aliases)),
        )
    terminal.RESULT.print(table if found else "no cards yet: ask something that nobody knows")


async def tasks(as_json: bool) -> None:
    """Prints all learning tasks, the newest first."""
    settings = config.load()
    async with peers.connected(settings) as services:
        found = await peers.while_restarting(
            services.factory.tasks, cluster.Cluster(settings).supervisor.alive
        )
    if as_json:
        terminal.print_json(found)
        return
    table = rich.table.Table(
        "id", "status", "progress", "what", "card or detail", "teachers", "created"
    )
    for task in found:
        result = task.error or task.card.partition("@")[0] or task.detail
        table.add_row(
            task.id,
            task.status,
            f"{task.progress:.0%}",
            terminal.escape(task.trigger_query),
            terminal.escape(result),
            str(task.spent),
            terminal.moment(task.created_at_ms),
        )
    terminal.RESULT.print(table if found else "no tasks yet: ask something that nobody knows")


async def nightly(as_json: bool) -> None:
    """Starts now what waits for the night, and prints how it is learned."""
    settings = config.load()
    # One key for all attempts: a factory that restarts in between gathers once.
    key = uuid.uuid4().hex
    async with peers.connected(settings) as services:
        found = await peers.while_restarting(
            lambda: services.factory.run_nightly(key), cluster.Cluster(settings).supervisor.alive
        )
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
