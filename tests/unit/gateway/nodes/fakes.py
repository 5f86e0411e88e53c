"""Hand-written nodes, and a fleet of them in which no time passes by itself."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import AsyncGenerator, Sequence

from services.gateway import domain
from services.gateway.nodes import fleet as fleets
from shared import errors
from shared import settings as config

SKILL, OTHER = "skill@" + "a" * 64, "other@" + "b" * 64
ROWS = 4
HOME = "127.0.0.1:1"
QUESTION = domain.Conversation((domain.Message("user", "Who built it?"),))
UNREACHED = errors.UnavailableError("connection refused")


def asking(model: str = "auto", agent: str = "") -> domain.Conversation:
    return dataclasses.replace(QUESTION, model=model, agent=agent)


class FakeBackend:
    """Answers its address, unless it is told to fail."""

    def __init__(self, address: str, served: Sequence[str] = (), resident: Sequence[str] = ()):
        self.address = address
        self.node = domain.Node(
            "tiny", tuple(served), tuple(resident), 1, True, id=address, most_rows=ROWS
        )
        self.unreached: errors.SkillmeshError | None = None
        """Raised by a look."""
        self.failures: list[errors.SkillmeshError] = []
        """Raised by the next requests, before their first piece."""
        self.breaks: errors.SkillmeshError | None = None
        """Raised after the first piece."""
        self.held: asyncio.Event | None = None
        """Requests wait for it."""
        self.deadlines: list[float] = []
        self.pinned: list[str] = []
        self.cancelled = 0
        self.looks = 0
        self.is_closed = False

    def tells(self, **changes: object) -> None:
        self.node = dataclasses.replace(self.node, **changes)  # type: ignore[arg-type]

    @property
    def asked(self) -> int:
        return len(self.deadlines)

    async def look(self, deadline_s: float) -> domain.Node:
        self.looks += 1
        if self.unreached is not None:
            raise self.unreached
        return self.node

    async def whole(self, asked: domain.Asked, deadline_s: float) -> domain.Whole:
        await self._begins(deadline_s)
        return domain.Whole(self._answer(asked))

    async def stream(
        self, asked: domain.Asked, deadline_s: float
    ) -> AsyncGenerator[domain.Piece, None]:
        try:
            await self._begins(deadline_s)
            yield domain.Piece(self.address)
            if self.breaks is not None:
                raise self.breaks
            yield domain.Piece(" and more")
            yield domain.Piece("", (), self._answer(asked))
        except (GeneratorExit, asyncio.CancelledError):
            self.cancelled += 1
            raise

    async def pin(self, card: str) -> str:
        if card not in self.node.served:
            raise errors.NotFoundError(f"{card} is not here")
        self.pinned.append(card)
        return card

    async def unpin(self, card: str) -> str:
        self.pinned.remove(card)
        return card

    async def close(self) -> None:
        self.is_closed = True

    async def _begins(self, deadline_s: float) -> None:
        self.deadlines.append(deadline_s)
        if self.held is not None:
            await self.held.wait()
        if self.failures:
            raise self.failures.pop(0)

    def _answer(self, asked: domain.Asked) -> domain.Answer:
        return domain.Answer(self.address, "", 1.0, False, "", node=self.address)


class House:
    """A fleet of fakes; its clock stands still, its pauses are kept."""

    def __init__(self, *backends: FakeBackend, seed: int = 0, **gateway: object) -> None:
        self.backends = {one.address: one for one in backends}
        self.now = 0.0
        self.pauses: list[float] = []
        self.listed: list[str] | errors.SkillmeshError = []
        settings = config.Settings(
            gateway=config.Gateway.model_validate({"nodes": tuple(self.backends)} | gateway),
            inference=config.Inference(address=HOME),
        )
        self.fleet = fleets.Fleet(
            settings, self._connect, self._list, self._clock, self._pause, random.Random(seed)
        )

    async def begun(self) -> fleets.Fleet:
        """The fleet, all of whose nodes were looked at."""
        await self.fleet.find()
        await self.fleet.refresh()
        return self.fleet

    def state(self, address: str) -> domain.NodeState:
        return next(one for one in self.fleet.nodes() if one.address == address)

    def _connect(self, address: str) -> FakeBackend:
        return self.backends.setdefault(address, FakeBackend(address))

    async def _list(self) -> Sequence[str]:
        if isinstance(self.listed, errors.SkillmeshError):
            raise self.listed
        return self.listed

    def _clock(self) -> float:
        return self.now

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


async def streamed(fleet: fleets.Fleet, asked: domain.Asked = QUESTION) -> list[domain.Piece]:
    return [piece async for piece in fleet.stream(asked)]
