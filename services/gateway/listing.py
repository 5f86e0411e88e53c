"""`cards` and `tasks`: what the running cluster holds and has to do."""

from __future__ import annotations

import datetime

import rich.table

from services.gateway import cluster, output, peers
from shared import settings as config

_DIGEST_SHOWN = 12


async def cards(as_json: bool) -> None:
    """Prints the latest version of every card."""
    settings = config.load()
    async with peers.connected(settings) as services:
        found = await peers.while_restarting(
            services.cards, cluster.Cluster(settings).supervisor.alive
        )
    if as_json:
        output.print_json(found)
        return
    table = rich.table.Table("name", "version", "digest", "size", "domain", "created", "aliases")
    for card in found:
        table.add_row(
            output.escape(card.name),
            card.version,
            card.digest[:_DIGEST_SHOWN],
            size(card.size_bytes),
            output.escape(card.domain),
            moment(card.created_at_ms),
            output.escape(", ".join(card.aliases)),
        )
    output.RESULT.print(table if found else "no cards yet: ask something that nobody knows")


async def tasks(as_json: bool) -> None:
    """Prints all learning tasks, the newest first."""
    settings = config.load()
    async with peers.connected(settings) as services:
        found = await peers.while_restarting(
            services.tasks, cluster.Cluster(settings).supervisor.alive
        )
    if as_json:
        output.print_json(found)
        return
    table = rich.table.Table("id", "status", "progress", "what", "card or detail", "created")
    for task in found:
        result = task.error or task.card.partition("@")[0] or task.detail
        table.add_row(
            task.id,
            task.status,
            f"{task.progress:.0%}",
            output.escape(task.trigger_query),
            output.escape(result),
            moment(task.created_at_ms),
        )
    output.RESULT.print(table if found else "no tasks yet: ask something that nobody knows")


def size(size_bytes: int) -> str:
    """A size for people."""
    return f"{size_bytes / 1000:,.0f} kB"


def moment(at_ms: int) -> str:
    """A Unix time in local time, for people."""
    return datetime.datetime.fromtimestamp(at_ms / 1000).strftime("%Y-%m-%d %H:%M:%S")
