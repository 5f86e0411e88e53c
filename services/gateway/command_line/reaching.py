"""How a command reaches the cluster that the configuration names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from services.gateway.calls import peers
from services.gateway.cluster import cluster
from shared import settings as config

T = TypeVar("T")


async def asked(call: Callable[[peers.Peers], Awaitable[T]]) -> T:
    """Makes a repeatable call, patient while a supervised service comes back.

    Args:
        call: what to ask of which service.

    Raises:
        errors.UnavailableError: nobody answers; says how to start the cluster where none runs.
        errors.SkillmeshError: what the service answered.
    """
    settings = config.load()
    alive = cluster.Cluster(settings).supervisor.alive
    async with peers.connected(settings) as services:
        answer: T = await peers.while_restarting(lambda: call(services), alive)
        return answer
