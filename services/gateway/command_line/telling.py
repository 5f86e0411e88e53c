"""`tell` and `agents`: right answers for an agent to remember, and what agents there are."""

from __future__ import annotations

import asyncio
import json
import pathlib
import uuid

import rich.table

from services.gateway import domain
from services.gateway.calls import peers
from services.gateway.cluster import cluster
from shared import settings as config
from shared import terminal

_LOOK_S = 1.0
_PATIENCE_S = 3600.0
_USAGE = 'make tell agent=ada q="…" answer="…", or make tell agent=ada questions=PAIRS.json'
_OFF = (
    "agents are switched off: set hierarchy.enabled in config.yaml, or "
    "SKILLMESH__HIERARCHY__ENABLED=true, and start the cluster again"
)


async def tell(
    agent: str, question: str, answer: str, path: pathlib.Path | None, wait: bool, as_json: bool
) -> None:
    """Gives an agent right answers, and, if wanted, waits until it has learned them.

    Args:
        agent: whom; made where it is not known.
        question: what it was asked.
        answer: what is right.
        path: instead of both a JSON file of objects with `question` and `answer`.
        wait: until nothing of it is left to learn.
        as_json: print one JSON object.

    Raises:
        terminal.UsageError: something is missing, or the file is not of that form.
        terminal.FailedError: it took longer than an hour.
    """
    pairs = _pairs(question, answer, path)
    if not agent or not pairs:
        raise terminal.UsageError(f"an agent, a question or its answer is missing: {_USAGE}")
    settings = _settings()
    async with peers.connected(settings) as services:
        key = uuid.uuid4().hex
        queued = await peers.while_restarting(
            lambda: services.agents.tell(agent, pairs, key),
            cluster.Cluster(settings).supervisor.alive,
        )
        found = await _learned(services, agent) if wait else None
    if as_json:
        terminal.print_json({"agent": agent, "given": len(pairs), "queued": queued, "now": found})
    elif found is None:
        terminal.RESULT.print(f"{queued} waiting to be learned by {terminal.escape(agent)}")
    else:
        terminal.RESULT.print(
            f"learned in {found.rounds} rounds; {terminal.escape(found.memory)} answers now"
        )
        asked = {one.strip() for one, _ in pairs}
        for given_up, reason in found.given_up:
            if given_up not in asked:
                continue
            told = terminal.escape(f"given up ({reason}): {given_up}")
            terminal.RESULT.print(told, style="yellow")


async def agents(as_json: bool) -> None:
    """Prints the agents of the node."""
    settings = _settings()
    async with peers.connected(settings) as services:
        found = await peers.while_restarting(
            services.agents.all, cluster.Cluster(settings).supervisor.alive
        )
    if as_json:
        terminal.print_json(found)
        return
    table = rich.table.Table(
        "agent", "memory", "learned", "waiting", "given up", "rounds", "last mark", "hits"
    )
    for one in found:
        table.add_row(
            terminal.escape(one.agent),
            terminal.escape(one.memory),
            str(one.examples),
            str(one.queued),
            str(one.given_up_count),
            str(one.rounds),
            one.mark,
            f"{one.hit_rate:.0%}",
        )
    terminal.RESULT.print(table if found else f"no agents yet: {_USAGE}")
    for one in found:
        if one.refused:
            told = terminal.escape(f"{one.agent} learns nothing: {one.refused}")
            terminal.RESULT.print(told, style="yellow")


async def _learned(services: peers.Peers, agent: str) -> domain.Agent:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                found = await services.agents.one(agent)
                if found.is_done:
                    return found
                if found.refused:
                    raise terminal.FailedError(f"{agent} learns nothing: {found.refused}")
                await asyncio.sleep(_LOOK_S)
    except TimeoutError as error:
        raise terminal.FailedError(
            f"{agent} has not learned it within {_PATIENCE_S / 60:.0f} minutes; `make agents` and "
            "`make status` tell how it stands"
        ) from error


def _settings() -> config.Settings:
    settings = config.load()
    if not settings.hierarchy.enabled:
        raise terminal.UsageError(_OFF)
    return settings


def _pairs(question: str, answer: str, path: pathlib.Path | None) -> list[tuple[str, str]]:
    if path is None:
        return [(question, answer)] if question.strip() and answer.strip() else []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [(str(one["question"]), str(one["answer"])) for one in found]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise terminal.UsageError(
            f"{path}: {error}; it must be a JSON list of objects with `question` and `answer`"
        ) from error
