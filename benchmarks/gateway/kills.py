"""`python -m benchmarks.gateway kills`: any process of a cluster dies, again and again, under load.

A whole private cluster with its supervisor. OpenAI's own client, with the retries that it comes
with, asks cards whose answers are known, the bare base, and whatever the router chooses; topics are
taught, corrections given, unknown questions asked. Every 20 seconds one process gets SIGKILL.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import pathlib
import random
import signal
import tempfile
import time

from benchmarks import results
from benchmarks.gateway import judging, load, publishing
from services.gateway import domain
from services.gateway.calls import peers
from services.gateway.cluster import cluster
from shared import errors, terminal
from shared import settings as config
from shared.models import base as bases
from shared.rpc import client

MINUTES = 10.0
_KILL_EVERY_S, _PATIENCE_S = 20.0, 120.0
_CARDS, _TELLING = 3, 0.2
"""Size of the weights that makes every card say something else."""
_STEPS = 60
"""Of a training: that many skills are learned meanwhile matters, not how well."""
_TOLD = 3


def measure(minutes: float = MINUTES, seed: int = 0) -> list[results.Row]:
    """Runs for so long, and as long as a cluster takes to start and to recover.

    Args:
        minutes: of load.
        seed: of who dies.
    """
    settings = config.Settings(evolution=config.Evolution(provider_type="documents"))
    recipe = settings.model.recipe().model_copy(update={"max_steps": _STEPS, "least_steps": 1})
    model = settings.model.model_copy(update={"recipes": {settings.model.base: recipe}})
    with tempfile.TemporaryDirectory(prefix="skillmesh-kills-") as name:
        folder = pathlib.Path(name)
        publishing.trusted(folder)
        terminal.NOTES.print("gateway: a cluster starts")
        private = cluster.Cluster.private(folder, settings.model_copy(update={"model": model}))
        with private as local:
            return asyncio.run(_measured(local, minutes, seed))


def rows(
    tally: judging.Tally,
    killed: collections.Counter[str],
    tasks: dict[str, domain.Task | None],
    note: str,
) -> list[results.Row]:
    """The figures.

    Args:
        tally: of the requests.
        killed: how often each process was.
        tasks: that were accepted, as they are in the end; None of one that is lost.
        note: behind some rows.
    """
    lost = [task_id for task_id, task in tasks.items() if task is None]
    states = collections.Counter(task.status.lower() for task in tasks.values() if task)
    states_told = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    wrong = "; ".join(tally.wrong[:_TOLD])
    unexpected = "; ".join(tally.told[:_TOLD])
    return [
        results.Row("kills_tasks_lost", len(lost), "tasks", most=0, note="; ".join(lost[:_TOLD])),
        results.Row("kills_tasks_accepted", len(tasks), "tasks", note=states_told),
        results.Row("kills_wrong_card", len(tally.wrong), "answers", most=0, note=wrong),
        results.Row("kills_not_retryable", tally.unexpected, "requests", most=0, note=unexpected),
        results.Row("kills_requests", tally.requests, "requests", note=note),
        results.Row(
            "kills_cut_off",
            tally.failures[judging.CUT_OFF],
            "requests",
            note=f"of {tally.streamed} streams: died behind the first word, as the client is told",
        ),
        *(
            results.Row(
                f"kills_failed_{kind}", tally.failures[kind], "requests", note="after its retries"
            )
            for kind in judging.RETRYABLE
        ),
        *(
            results.Row(f"kills_of_{name}", count, "kills")
            for name, count in sorted(killed.items())
        ),
    ]


async def _measured(local: cluster.Cluster, minutes: float, seed: int) -> list[results.Row]:
    base = bases.load(bases.EMBEDDED)
    made = publishing.made(base, _CARDS, _TELLING)
    for card in made:
        await publishing.publish(local.settings, publishing.version_of(card, 0))
    expected = await load.answers_alone(base, [publishing.version_of(card, 0) for card in made])
    under = load.Load(local.settings, expected, time.monotonic() + minutes * 60)
    await under.until_served()
    killed: collections.Counter[str] = collections.Counter()
    killing = asyncio.create_task(_kill(local, random.Random(seed), killed))
    try:
        await under.run()
    finally:
        killing.cancel()
        await asyncio.wait([killing])
    terminal.NOTES.print("gateway: the cluster recovers")
    await asyncio.to_thread(local.until_healthy)
    async with peers.connected(local.settings) as services:
        tasks = {task_id: await _task(services, task_id) for task_id in under.tasks}
    note = f"{sum(killed.values())} kills in {minutes:g} minutes, load {os.getloadavg()[0]:.0f}"
    return rows(under.tally, killed, tasks, note)


async def _kill(
    local: cluster.Cluster, chance: random.Random, killed: collections.Counter[str]
) -> None:
    while True:
        await asyncio.sleep(_KILL_EVERY_S)
        running = [one for one in local.supervisor.processes() if one.pid]
        victim = chance.choice(running)
        terminal.NOTES.print(f"gateway: {victim.name} is killed")
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim.pid, signal.SIGKILL)
            killed[victim.name] += 1


async def _task(services: peers.Peers, task_id: str) -> domain.Task | None:
    try:
        return await client.retried(lambda: services.factory.task(task_id), _PATIENCE_S)
    except errors.NotFoundError:
        return None
