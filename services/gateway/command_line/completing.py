"""What a shell offers behind a half-typed command: cards and tasks of the running cluster.

Never fails and never keeps anybody waiting: without an answer in time nothing is offered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

import structlog

from services.gateway.calls import peers
from shared import errors
from shared import settings as config

_LIMIT_S = 0.8
_MOST = 200


def cards(incomplete: str) -> list[str]:
    """Names of cards that begin so; behind an `@`, the aliases and digests of that card."""
    name, at, _ = incomplete.partition("@")

    async def ask(services: peers.Peers) -> Iterable[str]:
        if not at:
            return [card.name for card in await services.store.cards()]
        versions = await services.store.versions(name)
        selectors = [alias for card in versions for alias in card.aliases]
        selectors += [card.digest for card in versions]
        return [f"{name}@{selector}" for selector in selectors]

    return _offered(ask, incomplete)


def tasks(incomplete: str) -> list[str]:
    """Ids of tasks that begin so, the newest first."""

    async def ask(services: peers.Peers) -> Iterable[str]:
        return [task.id for task in await services.factory.tasks()]

    return _offered(ask, incomplete)


def _offered(ask: Callable[[peers.Peers], Awaitable[Iterable[str]]], incomplete: str) -> list[str]:
    # A line of a log would stand amid what is being typed.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))

    async def found() -> list[str]:
        async with peers.connected(config.load()) as services:
            known = await asyncio.wait_for(ask(services), _LIMIT_S)
        return [one for one in dict.fromkeys(known) if one.startswith(incomplete)][:_MOST]

    try:
        return asyncio.run(found())
    except (errors.SkillmeshError, TimeoutError):
        return []
