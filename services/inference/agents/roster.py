"""The agents of this node: those in memory, and those that were not used for long on disk alone.

Belongs to the event loop; whatever works on an agent's layers does so in a thread, holding its
lock. Knows nothing about models, answers or the hierarchy.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from services.inference.agents import feedback, ledger
from shared import errors
from shared.hierarchy import agent, agent_state, learning, messages, stack, weights, wire

T = TypeVar("T")
_COPIES = 5
"""Of a layer's size: its weights, where they began, and their history of interactions."""
_BYTES = 4


@dataclasses.dataclass(eq=False)
class Held:
    """An agent in memory."""

    layers: agent.AgentLayers
    lock: asyncio.Lock = dataclasses.field(default_factory=asyncio.Lock)
    """For whoever reads or changes the layers for longer than an instant."""
    moments: learning.Moments | None = None
    """Of its last round, for the next one; an agent that is read from disk begins without."""
    settled_version: int = -1
    """Of the snapshot that holds what was settled last."""
    busy: int = 0
    """Rounds that learn on it; it stays in memory."""
    looked_at_version: int = -1
    """Of the snapshot on which it last learned, or was tried for what it has forgotten."""
    looked_at_s: float = float("-inf")
    """When, by the event loop's clock."""
    observed: int = 0
    """Generations taken in since the last commit."""

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        layers = sum(map(_size, self.layers.weights.values())) * _COPIES
        waiting = sum(_size(d) for one in self.layers.unsettled for d in one.private.values())
        pending = self.layers.pending
        waiting += sum(_size(d) for d in (*pending.shared.values(), *pending.private.values()))
        moments = 0 if self.moments is None else self.moments.size_bytes
        return (layers + waiting) * _BYTES + moments + self.layers.cache.size_bytes


class Roster:
    """Finds agents by name."""

    def __init__(
        self,
        kept: ledger.Ledger,
        frame: wire.Frame,
        settings: agent.AgentSettings,
        seed: int,
        memory_bytes: int,
        left: Callable[[str], None] = lambda agent: None,
    ) -> None:
        """Takes over what is kept.

        Args:
            kept: states of before.
            frame: of the hierarchy.
            settings: of the agents' own layers.
            seed: of their starting values.
            memory_bytes: for the layers of all agents in memory; one alone may pass it.
            left: told of an agent that is in memory no more.
        """
        self.frame = frame
        self._kept, self._settings, self._seed = kept, settings, seed
        self._memory_bytes, self._left = memory_bytes, left
        self._held: collections.OrderedDict[str, Held] = collections.OrderedDict()
        """Used longest ago first."""
        self._loading = asyncio.Lock()
        self.records = {record.agent: record for record in kept.records()}
        """Of all agents."""

    def known(self, name: str) -> ledger.Record:
        """What is kept of an agent.

        Raises:
            errors.NotFoundError: no such agent is here.
        """
        if name not in self.records:
            raise errors.NotFoundError(
                f"agent {name!r} is not known to this node; GiveFeedback makes it known, "
                "ListAgents tells those that are"
            )
        return self.records[name]

    def in_memory(self, name: str) -> Held | None:
        """An agent, where it is in memory."""
        return self._held.get(name)

    async def get(self, name: str) -> Held:
        """An agent, brought into memory.

        Raises:
            errors.NotFoundError: no such agent is here.
            errors.IntegrityError: what is kept of it can't be read.
        """
        async with self._loading:
            self.known(name)
            if name not in self._held:
                self._held[name] = Held(await asyncio.to_thread(self._load, name))
            self._held.move_to_end(name)
            await self._make_room()
            return self._held[name]

    @contextlib.asynccontextmanager
    async def locked(self, name: str) -> AsyncIterator[Held]:
        """An agent in memory, which stays there meanwhile, with its lock.

        Raises:
            errors.NotFoundError: no such agent is here.
            errors.IntegrityError: what is kept of it can't be read.
        """
        while True:
            held = await self.get(name)
            async with held.lock:
                # It may have left while this waited; then another object has its state.
                if self._held.get(name) is held:
                    yield held
                    return

    def stack(self, name: str, held: Held, snapshot: messages.Snapshot | None) -> stack.Stack:
        """What an agent answers with. Every change of any layer makes the version higher."""
        shared = {} if snapshot is None else snapshot.layers
        before = -1 if snapshot is None else snapshot.version
        version = self.known(name).revision + before + 1
        return stack.Stack(version, {**shared, **held.layers.weights})

    def learned(self, name: str, examples: int) -> None:
        """Takes note of how many pairs an agent has learned, as the ledger has counted."""
        if name in self.records:
            self.records[name] = dataclasses.replace(self.records[name], examples=examples)

    def refresh(self, name: str) -> None:
        """Takes note of an agent that was made, or forgotten, in the ledger."""
        found = {one.agent: one for one in self._kept.records()}
        if name in found:
            self.records.setdefault(name, found[name])
        else:
            self.records.pop(name, None)
            self._held.pop(name, None)

    async def commit(
        self,
        name: str,
        held: Held,
        record: ledger.Record,
        learned: list[feedback.Queued] | None = None,
        outgoing: tuple[int, bytes] | None = None,
    ) -> None:
        """Writes an agent as it is now; to be called with its lock held.

        Where that fails it leaves memory, and with it what is not on disk.

        Raises:
            errors.NotFoundError: it was forgotten in the meantime.
        """

        def write() -> ledger.Record:
            state = agent_state.to_bytes(held.layers)
            return self._kept.commit(record, state, learned or (), outgoing)

        try:
            self.records[name] = await asyncio.to_thread(write)
        except BaseException:
            # What is on disk is what counts: it is read again.
            if self._held.get(name) is held:
                del self._held[name]
            raise
        held.observed = 0

    async def save(self, least: int = 1) -> None:
        """Writes those that have taken in as many generations since they were written last."""
        for name, held in list(self._held.items()):
            async with held.lock:
                if held.observed >= least and name in self.records:
                    await self.commit(name, held, self.records[name])

    def _load(self, name: str) -> agent.AgentLayers:
        layers = agent.AgentLayers(name, self.frame, self._settings, self._seed)
        if (state := self._kept.state(name)) is not None:
            try:
                agent_state.restore(layers, state)
            except (errors.InvalidInputError, errors.IntegrityError, KeyError) as error:
                raise errors.IntegrityError(
                    f"what is kept of agent {name!r} can't be read: {error}; ForgetAgent drops it, "
                    "or go back to the ranks and the base model that it was made with"
                ) from error
        return layers

    async def _make_room(self) -> None:
        total = sum(held.size_bytes for held in self._held.values())
        for name, held in list(self._held.items())[:-1]:
            if total <= self._memory_bytes:
                return
            if held.lock.locked() or held.busy:
                continue
            async with held.lock:
                if held.observed:
                    await self.commit(name, held, self.records[name])
                total -= held.size_bytes
                del self._held[name]
                self._left(name)


def _size(part: weights.Weights) -> int:
    return sum(factors.size for factors in part.values())
