"""`Agents`: what an inference node does for its agents, from feedback to the next answer.

    feedback -> on disk -> a round of learning, between the tokens of answers -> a submission
    settlement -> the agent's own layers; snapshot -> the shared ones; both -> a new frozen stack

One round waits for the settlement of the one before: only then do the layers stand where the next
one is to begin. Whatever has happened is on disk before anybody hears of it, so that a process that
is killed goes on from there. Knows nothing of gRPC, of how submissions travel, or of what a round
does.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from services.inference import mixing
from services.inference.agents import backend as backends
from services.inference.agents import ledger, lines, remembering, roster
from shared import errors
from shared.hierarchy import levels, messages, stack, weights, wire

_LOOK_S = 0.5
"""So often it is looked whether an agent may learn now."""
_AFTER_FAILURE_S = 30.0
_SAVE_S, _SAVE_AFTER = 10.0, 1
_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True)
class Learned:
    """What a round gave."""

    gradients: Mapping[levels.Level, weights.Delta]
    """Of all layers, (dA, dB) by module, as without inertia."""
    loss: float


Learn = Callable[
    [stack.Stack, Sequence[ledger.Pair], Sequence[ledger.Pair], int], Awaitable[Learned | None]
]
"""A round: the layers, feedback, what may be rehearsed, and a seed; the layers stay as they are.
None where there is no feedback and nothing of the rest was forgotten."""


@dataclasses.dataclass(frozen=True)
class AgentsSettings:
    """How agents learn."""

    rounds: int = 8
    """In which each pair of feedback takes part."""
    pairs: int = 32
    """Of feedback in one round."""
    rehearse_s: float = 60.0
    """So long an agent with nothing new rests between rounds that only rehearse."""


class Agents:
    """The agents of one node; belongs to the event loop."""

    def __init__(
        self,
        kept: ledger.Ledger,
        known: roster.Roster,
        backend: backends.LoRABackend,
        learn: Learn,
        settings: AgentsSettings,
    ) -> None:
        """Takes the parts that do the work; `start` takes the line to the hierarchy.

        Args:
            kept: what is on disk.
            known: the agents; tells this of those that left memory.
            backend: serves their memories.
            learn: runs one round on the model.
            settings: how they learn.
        """
        self._kept, self._roster, self._backend = kept, known, backend
        self._learn, self._settings = learn, settings
        self._line: lines.Line | None = None
        self._snapshot: messages.Snapshot | None = None
        self._work = asyncio.Event()
        self._stale: dict[str, None] = {}
        self._changed = asyncio.Event()
        self._used: set[str] = set()
        """Agents that answered since their memory was published last."""
        self._failed_until: dict[str, float] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._remembering: set[asyncio.Task[None]] = set()

    def start(self, line: lines.Line) -> None:
        """Begins to learn and to follow; what was not handed on before is now."""
        self._line = line
        for record in self._roster.records.values():
            line.follow(record.agent, record.settled)
        for agent, sequence, data in self._kept.outgoing():
            line.submit(wire.submission_from_bytes(data, self._roster.frame))
            self._kept.taken_over(agent, sequence)
        loops = (self._learning(), self._refreshing(), self._saving())
        self._tasks = [asyncio.create_task(one) for one in loops]

    async def stop(self) -> None:
        """Gives up the round under way; feedback stays on disk."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._remembering, return_exceptions=True)
        await self._roster.save()
        self._kept.close()

    async def give_feedback(
        self, agent: str, key: str, pairs: Sequence[ledger.Pair]
    ) -> ledger.Given:
        """Takes right answers, to be learned soon; on disk when this returns.

        Raises:
            errors.InvalidInputError: the name or a pair is not fit.
            errors.CapacityError: there is no place for another agent.
            errors.OverloadedError: too much waits already.
        """
        ledger.check(agent, pairs)
        given = await asyncio.to_thread(self._kept.give, agent, key, pairs, self._settings.rounds)
        if agent not in self._roster.records:
            self._roster.refresh(agent)
            if self._line is not None:
                self._line.follow(agent, 0)
        self._work.set()
        return given

    async def forget(self, agent: str) -> None:
        """Drops an agent's own layers and what it was to learn.

        Raises:
            errors.NotFoundError: no such agent is here.
        """
        self._roster.known(agent)
        await asyncio.to_thread(self._kept.forget, agent)
        self._roster.refresh(agent)
        self._backend.forget(agent)
        self._stale.pop(agent, None)
        if self._line is not None:
            self._line.leave(agent)

    def records(self) -> list[ledger.Record]:
        """Of all agents."""
        return list(self._roster.records.values())

    def record(self, agent: str) -> ledger.Record:
        """Of one agent.

        Raises:
            errors.NotFoundError: no such agent is here.
        """
        return self._roster.known(agent)

    async def held(self, agent: str) -> roster.Held:
        """An agent, brought into memory.

        Raises:
            errors.NotFoundError: no such agent is here.
        """
        return await self._roster.get(agent)

    def in_memory(self, agent: str) -> roster.Held | None:
        """An agent, where it is in memory."""
        return self._roster.in_memory(agent)

    async def queued(self) -> dict[str, int]:
        """Pairs that wait to be learned, by agent."""
        return await asyncio.to_thread(self._kept.counts)

    @property
    def snapshot_version(self) -> int:
        """Of the shared layers here; -1 before the first came."""
        return -1 if self._snapshot is None else self._snapshot.version

    @property
    def connected(self) -> bool:
        """Whether the hierarchy is there now."""
        return self._line is not None and self._line.connected

    def memory(self, agent: str) -> str:
        """`AGENT@VERSION`: what its next answer is given with."""
        held = self._roster.in_memory(agent)
        at = self._backend.version(agent) if agent in self._backend.agents() else None
        if at is None and held is not None:
            at = self._stack(agent, held).version
        return "" if at is None else f"{agent}@{at}"

    async def prepare(self, agent: str) -> None:
        """Makes sure that `compose` knows an agent.

        Raises:
            errors.NotFoundError: no such agent is here.
            errors.SkillmeshError: its memory can't be served.
        """
        held = await self._roster.get(agent)
        if agent not in self._backend.agents():
            await self._backend.publish(agent, self._stack(agent, held))

    def compose(self, agent: str, skills: Sequence[mixing.Share] = ()) -> backends.Memory:
        """With what to answer; see `LoRABackend.compose`. To be called right behind `prepare`."""
        self._used.add(agent)
        return self._backend.compose(agent, skills)

    def remember(self, agent: str, memory: backends.Memory) -> None:
        """Takes in a generation that has ended; never waits, and nothing that fails is heard."""
        if memory.capture is not None:
            task = asyncio.create_task(self._observe(agent, memory))
            self._remembering.add(task)
            task.add_done_callback(self._remembering.discard)

    async def take_snapshot(self, snapshot: messages.Snapshot) -> None:
        """The shared layers as they are from now on."""
        self._snapshot = snapshot
        for agent in self._backend.agents():
            self._mark_stale(agent)
        self._work.set()

    async def take_settlement(self, settlement: messages.Settlement) -> None:
        """Moves an agent's own layers by what became of its submission; on disk on return."""
        agent = settlement.agent
        with contextlib.suppress(errors.NotFoundError):  # It was forgotten.
            async with self._roster.locked(agent) as held:
                record = self._roster.known(agent)
                # One that was made again is told of submissions of the one before it.
                if not record.settled < settlement.sequence <= held.layers.sequence:
                    return
                await asyncio.to_thread(held.layers.settle, settlement)
                changed = dataclasses.replace(
                    record,
                    revision=record.revision + 1,
                    settled=settlement.sequence,
                    mark=settlement.mark,
                    moved=record.moved + len(settlement.moved),
                )
                await self._roster.commit(agent, held, changed)
        if agent in self._backend.agents():
            self._mark_stale(agent)
        self._work.set()

    def _stack(self, agent: str, held: roster.Held) -> stack.Stack:
        """What an agent answers with now. Every change of any layer makes the version higher."""
        shared = {} if self._snapshot is None else self._snapshot.layers
        version = self._roster.known(agent).revision + self.snapshot_version + 1
        return stack.Stack(version, {**shared, **held.layers.weights})

    def _mark_stale(self, agent: str) -> None:
        self._stale[agent] = None
        self._changed.set()

    async def _refreshing(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._stale:
                agent = next(iter(self._stale))
                del self._stale[agent]
                held = self._roster.in_memory(agent)
                if held is None or agent not in self._roster.records:
                    continue
                warm = agent in self._used
                self._used.discard(agent)
                try:
                    await self._backend.publish(agent, self._stack(agent, held), warm)
                except errors.SkillmeshError as error:
                    _log.warning("memory not renewed", agent=agent, reason=str(error))

    async def _saving(self) -> None:
        while True:
            await asyncio.sleep(_SAVE_S)
            await self._roster.save(_SAVE_AFTER)

    async def _learning(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._work.wait()
            self._work.clear()
            waiting = await asyncio.to_thread(self._kept.counts)
            for agent in [*waiting, *self._idle(waiting)]:
                now = asyncio.get_running_loop().time()
                if self._failed_until.get(agent, 0.0) > now:
                    continue
                try:
                    await self._learn_round(agent)
                    self._failed_until.pop(agent, None)
                except errors.NotFoundError:
                    continue  # It was forgotten.
                except Exception as error:
                    # One agent's trouble must not end the others' learning.
                    self._failed_until[agent] = now + _AFTER_FAILURE_S
                    expected = isinstance(error, errors.SkillmeshError)
                    tell = _log.warning if expected else _log.exception
                    tell("round failed", agent=agent, reason=str(error))

    def _idle(self, waiting: Mapping[str, int]) -> list[str]:
        """Agents in memory that may have lost to others' learning what they had learned."""
        due = asyncio.get_running_loop().time() - self._settings.rehearse_s
        return [
            agent
            for agent, record in self._roster.records.items()
            if agent not in waiting and record.examples
            if (held := self._roster.in_memory(agent)) is not None
            and held.looked_at_version != self.snapshot_version
            and held.looked_at_s <= due
        ]

    async def _learn_round(self, agent: str) -> None:
        line = self._line
        if line is None or self._snapshot is None or not line.has_room:
            return
        held = await self._roster.get(agent)
        held.busy += 1
        try:
            await self._learn_on(agent, held, line, self._snapshot)
        finally:
            held.busy -= 1

    async def _learn_on(
        self, agent: str, held: roster.Held, line: lines.Line, snapshot: messages.Snapshot
    ) -> None:
        at = line.position(agent)
        # Before it has joined nobody knows the number of its next submission.
        if held.layers.unsettled or not (at.joined or held.layers.sequence):
            return
        record, layers = self._roster.known(agent), self._stack(agent, held)
        queued = await asyncio.to_thread(self._kept.queued, agent, self._settings.pairs)
        lessons = await asyncio.to_thread(self._kept.lessons, agent)
        pairs = [one.pair for one in queued]
        found = await self._learn(layers, pairs, lessons, record.rounds)
        held.looked_at_version = snapshot.version
        held.looked_at_s = asyncio.get_running_loop().time()
        if found is None:
            return
        async with held.lock:
            if self._roster.in_memory(agent) is not held:
                return  # It was forgotten.
            own = held.layers
            own.sequence = max(own.sequence, at.sent)
            own.learned(
                snapshot.version,
                {level: one for level, one in found.gradients.items() if level.is_shared},
                {level: one for level, one in found.gradients.items() if not level.is_shared},
                len(queued),
            )
            submission = own.submission()
            record = dataclasses.replace(self._roster.known(agent), rounds=record.rounds + 1)
            data = None if submission is None else wire.submission_to_bytes(submission)
            outgoing = None if data is None or submission is None else (submission.sequence, data)
            await self._roster.commit(agent, held, record, queued, outgoing)
        if submission is not None:
            line.submit(submission)
            await asyncio.to_thread(self._kept.taken_over, agent, submission.sequence)
        _log.info("round learned", agent=agent, pairs=len(queued), loss=round(found.loss, 4))

    async def _observe(self, agent: str, memory: backends.Memory) -> None:
        try:
            assert memory.capture is not None
            taken = memory.capture.taken()
            async with self._roster.locked(agent) as held:
                seen = await asyncio.to_thread(remembering.trajectory, taken)
                activity = remembering.activity(taken, memory.stack)
                await asyncio.to_thread(held.layers.observe, seen, activity)
                held.observed += 1
        except errors.SkillmeshError as error:
            _log.info("generation not remembered", agent=agent, reason=str(error))
        except Exception:
            _log.exception("generation not remembered", agent=agent)
