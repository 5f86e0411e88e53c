"""The inference nodes behind one gateway, as one: who is there, who is asked, what if one fails.

    Finding ── addresses ──▶ Member (one a node: looks at it, counts, breaker) ──▶ Backend
                               ▲
    stream, answer ──▶ Tries ──┘ choice: by residency of the card, then by load

Knows neither HTTP nor protobuf. docs/adr/0025 says why it chooses and tries as it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

import structlog

from services.gateway import domain
from services.gateway.calls import peers as calls
from services.gateway.nodes import backend as backends
from services.gateway.nodes import finding, grpc_node, tries
from services.gateway.nodes import member as members
from shared import errors
from shared import settings as config
from shared.security import protection as protections

_FIND_EVERY = 3
"""The store is asked which nodes there are once in so many looks."""
_AWAY_EVERY_S = 0.5
"""Nodes that are not reached are looked at more often."""
_REFRESH_S = 0.5
Connect = Callable[[str], backends.Backend]
"""Makes the way to a node from its address."""
_log = structlog.get_logger(__name__)


class Fleet:
    """The nodes; `async with running(settings)` begins and ends it."""

    def __init__(
        self,
        settings: config.Settings,
        connect: Connect,
        listed: finding.Listed,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: random.Random | None = None,
    ) -> None:
        """Knows no node before `start` or `find`.

        Args:
            settings: of the cluster.
            connect: makes the way to a node.
            listed: asks the card store for nodes.
            clock: seconds, monotonic.
            pause: sleeps.
            chance: draws.
        """
        self._settings, self._home = settings.gateway, settings.inference.address
        self._connect, self._clock, self._pause = connect, clock, pause
        self._chance = chance or random.Random()
        self._finding = finding.Finding(settings.gateway.nodes, self._home, listed, clock)
        self._members: dict[str, members.Member] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        """Those that look at a node, by its address; that which looks for nodes has none."""
        self._leaving: set[asyncio.Task[None]] = set()
        self._is_running = False

    async def start(self) -> None:
        """Finds the nodes, asks each how it is, and goes on doing both."""
        self._is_running = True
        await self.find()
        await self.refresh(members.LOOK_DEADLINE_S)
        self._tasks[""] = asyncio.create_task(self._keep_finding())

    async def stop(self) -> None:
        """Ends it; requests under way end with an error."""
        self._is_running = False
        tasks = [*self._tasks.values(), *self._leaving]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for member in self._members.values():
            await member.close()
        self._members.clear()

    async def stream(
        self, asked: domain.Asked, deadline_s: float | None = None
    ) -> AsyncGenerator[domain.Piece, None]:
        """Answers piece by piece; to close it early stops the work.

        Args:
            asked: what.
            deadline_s: for all of it; None for `gateway.deadline_s`.

        Raises:
            errors.NotFoundError: no node serves the card.
            errors.SkillmeshError: what the last node that was asked answered. After the first
                piece nobody else is asked: a node that went away is an UnavailableError.
        """
        way = self._tries(asked, deadline_s)
        last: domain.Piece | None = None
        while last is None:
            member, come = await way.next(), False
            try:
                with member.asked(streams=True):
                    pieces = member.backend.stream(asked, way.left_s)
                    async with contextlib.aclosing(pieces):
                        async for piece in pieces:
                            if not come:
                                come = True
                                member.answers()
                            member.heard()
                            if piece.final is None:
                                yield piece
                            else:
                                # Told when the node has ended, so that it counts as answered.
                                last = piece
            except errors.SkillmeshError as error:
                if come:
                    raise
                failure = error
            else:
                continue
            await way.failed(member, failure)
        yield last

    async def answer(self, asked: domain.Asked, deadline_s: float | None = None) -> domain.Whole:
        """Answers in one piece; see `stream`."""
        way = self._tries(asked, deadline_s)
        while True:
            member = await way.next()
            try:
                with member.asked():
                    return await member.backend.whole(asked, way.left_s)
            except errors.SkillmeshError as error:
                failure = error
            await way.failed(member, failure)

    def nodes(self) -> tuple[domain.NodeState, ...]:
        """All nodes, in the order of their addresses."""
        return tuple(self._members[address].state() for address in sorted(self._members))

    async def pin(self, card: str) -> tuple[str, ...]:
        """Keeps a card in memory on all nodes that serve it; returns their addresses.

        Raises:
            errors.SkillmeshError: no node could, with the reason of one.
        """
        return await self._everywhere(lambda backend: backend.pin(card))

    async def unpin(self, card: str) -> tuple[str, ...]:
        """Lets a card leave memory on all nodes; returns the addresses of those that serve it.

        Raises:
            errors.SkillmeshError: no node could, with the reason of one.
        """
        return await self._everywhere(lambda backend: backend.unpin(card))

    def known(self) -> tuple[members.Member, ...]:
        """All nodes, each once: one process may be known by two addresses, one of them in vain."""
        seen: set[str] = set()
        found = []
        for member in sorted(self._members.values(), key=lambda one: not one.is_reached):
            identity = (member.node.id if member.node else "") or member.address
            if identity not in seen:
                seen.add(identity)
                found.append(member)
        return tuple(found)

    async def refresh(self, patience_s: float = _REFRESH_S) -> None:
        """Asks all nodes how they are; one that takes longer is not waited for."""
        looks = [asyncio.ensure_future(one.look()) for one in self._members.values()]
        if looks:
            await asyncio.wait(looks, timeout=patience_s)

    async def find(self) -> None:
        """Takes in the nodes that are new, and gives new requests to none that has gone."""
        found = await self._finding.addresses(self._is_away)
        for address in found:
            if address not in self._members:
                member = members.Member(self._connect(address), self._settings.breaker, self._clock)
                self._members[address] = member
                if self._is_running:
                    self._tasks[address] = asyncio.create_task(self._keep_looking(member))
        for address in [one for one in self._members if one not in found]:
            _log.info("node has gone", node=address)
            gone = self._members.pop(address)
            task = self._tasks.pop(address, None)
            if task is not None:
                task.cancel()
            leaving = asyncio.create_task(_leave(gone))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    def _tries(self, asked: domain.Asked, deadline_s: float | None) -> tries.Tries:
        return tries.Tries(
            self,
            asked,
            self._home,
            self._settings.retries,
            self._settings.deadline_s if deadline_s is None else deadline_s,
            self._clock,
            self._pause,
            self._chance,
        )

    def _is_away(self, address: str) -> bool:
        member = self._members.get(address)
        return member is not None and not member.is_reached

    async def _everywhere(
        self, change: Callable[[backends.Backend], Awaitable[str]]
    ) -> tuple[str, ...]:
        asked = [one for one in self.known() if one.is_reached]
        if not asked:
            raise errors.UnavailableError("no inference node is reached; ask again")
        outcomes = await asyncio.gather(
            *[change(one.backend) for one in asked], return_exceptions=True
        )
        done, failures = [], []
        for member, outcome in zip(asked, outcomes, strict=True):
            if isinstance(outcome, errors.SkillmeshError):
                failures.append(outcome)
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                done.append(member.address)
        if not done:
            # Of several reasons that which is more than "not here".
            raise min(failures, key=lambda one: isinstance(one, errors.NotFoundError))
        return tuple(done)

    async def _keep_finding(self) -> None:
        while True:
            await self._pause(_FIND_EVERY * self._settings.nodes_every_s)
            try:
                await self.find()
            except Exception:
                # The next round may do better; without it nobody would see a node come or go.
                _log.exception("nodes can't be looked for")

    async def _keep_looking(self, member: members.Member) -> None:
        while True:
            try:
                await member.look()
            except Exception:
                _log.exception("node can't be looked at", node=member.address)
            every_s = self._settings.nodes_every_s
            # One that comes is to be found at once.
            await self._pause(every_s if member.is_reached else min(every_s, _AWAY_EVERY_S))


async def _leave(member: members.Member) -> None:
    """Closes the way to a node when the last request has ended."""
    try:
        await member.idle.wait()
    finally:
        await member.close()


@contextlib.asynccontextmanager
async def running(settings: config.Settings) -> AsyncIterator[Fleet]:
    """The fleet of a cluster; ended with the block."""
    protection = protections.Protection.configured(settings)
    async with calls.connected(settings) as peers:

        def connect(address: str) -> backends.Backend:
            if "://" in address:
                # Only here: OpenAI's package takes as long to import as all else of a gateway.
                from services.gateway.nodes import openai_backend

                return openai_backend.configured(address, settings, peers, protection)
            return grpc_node.GrpcNode(address, protection)

        async def listed() -> list[str]:
            return [node.address for node in await peers.store.residency()]

        fleet = Fleet(settings, connect, listed)
        try:
            await fleet.start()
            yield fleet
        finally:
            await fleet.stop()
