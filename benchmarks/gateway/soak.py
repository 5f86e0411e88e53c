"""`python -m benchmarks.gateway soak`: 64 streams for minutes while cards are being published.

A whole private cluster. Every stream asks for one answer after another over connections of their
own: the bare base model, whatever the router chooses, and cards by their names, of which new
versions come all the while. Any answer that does not come to its end is an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import random
import tempfile
import time

from benchmarks import results
from benchmarks.gateway import processes, publishing, streams
from services.gateway.cluster import cluster
from shared import settings as config
from shared import terminal
from shared.models import base as bases

MINUTES = 10.0
_STREAMS, _TOKENS, _LIMIT_S = 64, 24, 300.0
_NAMES, _PUBLISH_EVERY_S = 8, 1.0
_WARM_SHARE, _TOLD_EVERY_S, _TOLD_ERRORS = 0.2, 30.0, 3


@dataclasses.dataclass
class Soaked:
    """What came of it."""

    answers: int = 0
    published: int = 0
    errors: list[str] = dataclasses.field(default_factory=list)
    began_mib: dict[str, float] = dataclasses.field(default_factory=dict)
    """By process, after the warm-up."""
    ended_mib: dict[str, float] = dataclasses.field(default_factory=dict)


def measure(minutes: float = MINUTES) -> list[results.Row]:
    """Runs for so long, and as long as a cluster takes to start.

    Args:
        minutes: of load.
    """
    found = Soaked()
    with tempfile.TemporaryDirectory(prefix="skillmesh-soak-") as name:
        folder = pathlib.Path(name)
        publishing.trusted(folder)
        terminal.NOTES.print("gateway: a cluster starts")
        with cluster.Cluster.private(folder, config.Settings()) as local:
            asyncio.run(_soak(local, minutes * 60, found))
    return rows(found, minutes, os.getloadavg()[0])


def rows(found: Soaked, minutes: float, load: float) -> list[results.Row]:
    """The figures."""
    note = f"{_STREAMS} streams for {minutes:g} minutes, load {load:.0f}"
    told = "; ".join([note, *found.errors[:_TOLD_ERRORS]])
    made = [
        results.Row("soak_errors", len(found.errors), "requests", most=0, note=told),
        results.Row("soak_answers", found.answers, "requests", note=note),
        results.Row("soak_published", found.published, "cards", note=note),
    ]
    for name, ended in found.ended_mib.items():
        began = found.began_mib.get(name, 0.0)
        told = f"{began:.0f} to {ended:.0f} MiB since a fifth of the time had passed"
        made.append(results.Row(f"soak_growth_{name}_mib", ended - began, "MiB", note=told))
    return made


async def _soak(local: cluster.Cluster, seconds: float, found: Soaked) -> None:
    made = publishing.made(bases.load(bases.EMBEDDED), _NAMES)
    for card in made:
        await publishing.publish(local.settings, publishing.version_of(card, 0))
    names = [card.manifest.name for card in made]
    address = local.settings.gateway.address
    await _until_served(address, names)
    until_s = time.monotonic() + seconds

    async def stream(number: int) -> None:
        chance = random.Random(number)
        while time.monotonic() < until_s:
            model = chance.choice(("base", "auto", chance.choice(names), chance.choice(names)))
            question = f"What happened in the year {chance.randrange(1000, 2000)}?"
            asked = streams.body(model, question, _TOKENS, no_learning=True)
            try:
                await streams.hear(address, asked, _LIMIT_S)
                found.answers += 1
            except (streams.StreamError, OSError) as error:
                found.errors.append(f"{model}: {type(error).__name__} {error}"[:300])

    async def publish() -> None:
        while True:
            number = found.published + 1
            card = made[number % len(made)]
            await publishing.publish(local.settings, publishing.version_of(card, number))
            found.published = number
            await asyncio.sleep(_PUBLISH_EVERY_S)

    async def tell() -> None:
        await asyncio.sleep(seconds * _WARM_SHARE)
        found.began_mib = _memory(local)
        while True:
            terminal.NOTES.print(
                f"gateway: {found.answers} answers, {len(found.errors)} errors, "
                f"{found.published} cards published"
            )
            await asyncio.sleep(_TOLD_EVERY_S)

    beside = [asyncio.create_task(publish()), asyncio.create_task(tell())]
    try:
        await asyncio.gather(*map(stream, range(_STREAMS)))
        found.ended_mib = _memory(local)
        for task in beside:
            if task.done():
                await task  # It never ends but by an error, which must not pass unseen.
    finally:
        for task in beside:
            task.cancel()
        await asyncio.wait(beside)


async def _until_served(address: str, names: list[str]) -> None:
    """Until every card answers for the first time."""
    deadline_s = time.monotonic() + _LIMIT_S
    for name in names:
        while True:
            with contextlib.suppress(streams.StreamError):
                await streams.hear(address, streams.body(name, "Who?", 1), _LIMIT_S)
                break
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"the card {name} is not served")
            await asyncio.sleep(0.2)


def _memory(local: cluster.Cluster) -> dict[str, float]:
    running = [one for one in local.supervisor.processes() if one.pid]
    return {one.name: processes.own_memory_mib(one.pid) for one in running}
