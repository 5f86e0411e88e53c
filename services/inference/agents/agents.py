"""`Agents`: what an inference node does for its agents, from feedback to the next answer.

    feedback -> on disk -> a round of learning, between the tokens of answers -> a submission
    settlement -> the agent's own layers; snapshot -> the shared ones; both -> a new frozen stack

Whatever has happened is on disk before anybody hears of it, so that a process that is killed goes
on from there. Whoever was told nothing here answers with the shared layers alone. Knows nothing of
gRPC, of how submissions travel, or of how agents learn.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Sequence

import structlog

from services.inference import mixing
from services.inference.agents import backend as backends
from services.inference.agents import feedback, learner, ledger, lines, remembering, roster
from shared import errors
from shared.hierarchy import messages, stack, wire

_GIVEN_UP = 100
"""Pairs that could not be learned, as many as are told."""
_SAVE_S, _SAVE_AFTER = 10.0, 1
_log = structlog.get_logger(__name__)


class Agents:
    """The agents of one node; belongs to the event loop."""

    def __init__(
        self,
        kept: ledger.Ledger,
        known: roster.Roster,
        backend: backends.LoRABackend,
        learns: learner.Learning,
        settings: learner.LearnerSettings,
    ) -> None:
        """Takes the parts that do the work; `start` takes the line to the hierarchy.

        Args:
            kept: what is on disk.
            known: the agents; tells this of those that left memory.
            backend: serves their memories.
            learns: learns on the model.
            settings: how they learn.
        """
        self._kept, self._roster, self._backend = kept, known, backend
        self._learns, self._settings = learns, settings
        self._learner = learner.Learner(kept, known, learns, settings)
        self._line: lines.Line | None = None
        self._stale: dict[str, None] = {}
        self._changed = asyncio.Event()
        self._used: set[str] = set()
        """Agents that answered since their memory was published last."""
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
        loops = (self._learner.run(line), self._refreshing(), self._saving())
        self._tasks = [asyncio.create_task(one) for one in loops]

    async def stop(self) -> None:
        """Gives up the round under way; feedback stays on disk."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._remembering, return_exceptions=True)
        await self._roster.save()
        self._kept.close()

    async def give_feedback(
        self, agent: str, key: str, pairs: Sequence[feedback.Pair]
    ) -> feedback.Given:
        """Takes right answers, to be learned soon; on disk when this returns.

        The same question again replaces what the agent was told of it before.

        Raises:
            errors.InvalidInputError: the name or a pair is not fit.
            errors.CapacityError: there is no place for another agent.
            errors.OverloadedError: too much waits already.
        """
        feedback.check(agent, pairs)
        told = [feedback.Pair(one.question.strip(), one.answer.strip()) for one in pairs]
        prompts = await self._learns.check(told)
        given = await asyncio.to_thread(self._kept.give, agent, key, told, self._settings.rounds)
        if agent not in self._roster.records:
            self._roster.refresh(agent)
            if self._line is not None:
                self._line.follow(agent, 0)
        await self._correct(agent, prompts)
        self._learner.look()
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

    async def given_up(self, agent: str) -> list[feedback.GivenUp]:
        """The latest that an agent could not learn, or not keep."""
        return await asyncio.to_thread(self._kept.given_up, agent, _GIVEN_UP)

    async def given_up_counts(self) -> dict[str, int]:
        """Pairs that were given up, by agent."""
        return await asyncio.to_thread(self._kept.given_up_counts)

    @property
    def snapshot_version(self) -> int:
        """Of the shared layers here; -1 before the first came."""
        snapshot = self._learner.snapshot
        return -1 if snapshot is None else snapshot.version

    @property
    def connected(self) -> bool:
        """Whether the hierarchy is there now."""
        return self._line is not None and self._line.connected

    def refused(self, agent: str) -> str:
        """Why the hierarchy does not take what an agent learns; empty where it does."""
        return "" if self._line is None else self._line.position(agent).refused

    def memory(self, agent: str) -> str:
        """`AGENT@VERSION`: what its next answer is given with."""
        at = self._backend.version(agent) if agent in self._backend.agents() else None
        if at is None and (made := self._current(agent)) is not None:
            at = made.version
        return "" if at is None else f"{agent}@{at}"

    async def prepare(self, agent: str) -> None:
        """Makes sure that `compose` knows an agent; one that was told nothing has what all share.

        Raises:
            errors.InvalidInputError: it can't be an agent's name.
            errors.SkillmeshError: its memory can't be served.
        """
        if agent in self._roster.records:
            await self._roster.get(agent)
            name = agent
        else:
            feedback.check_name(agent)
            name = feedback.SHARED
        if name in self._backend.agents():
            return
        if (made := self._current(name)) is not None:
            await self._backend.publish(name, made)

    def compose(self, agent: str, skills: Sequence[mixing.Share] = ()) -> backends.Memory | None:
        """With what to answer; see `LoRABackend.compose`. To be called right behind `prepare`.

        None where the agent was told nothing, and no shared layers have come yet.
        """
        name = agent if agent in self._backend.agents() else feedback.SHARED
        if name not in self._backend.agents():
            return None
        self._used.add(name)
        return self._backend.compose(name, skills)

    def remember(self, agent: str, memory: backends.Memory) -> None:
        """Takes in a generation that has ended; never waits, and nothing that fails is heard."""
        if memory.capture is not None:
            task = asyncio.create_task(self._observe(agent, memory))
            self._remembering.add(task)
            task.add_done_callback(self._remembering.discard)

    async def take_snapshot(self, snapshot: messages.Snapshot) -> None:
        """The shared layers as they are from now on."""
        self._learner.snapshot = snapshot
        for agent in self._backend.agents():
            self._mark_stale(agent)
        self._learner.look()

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
                held.settled_version = settlement.version
        if agent in self._backend.agents():
            self._mark_stale(agent)
        self._learner.look()

    def _current(self, agent: str) -> stack.Stack | None:
        """What an agent in memory, or whoever was told nothing, answers with now."""
        snapshot = self._learner.snapshot
        if agent == feedback.SHARED:
            return None if snapshot is None else stack.Stack(snapshot.version, snapshot.layers)
        held = self._roster.in_memory(agent)
        if held is None or agent not in self._roster.records:
            return None
        return self._roster.stack(agent, held, snapshot)

    async def _correct(self, agent: str, prompts: Sequence[Sequence[int]]) -> None:
        """Drops what the agent has said so far to prompts whose right answers it was told."""
        with contextlib.suppress(errors.NotFoundError, errors.IntegrityError):
            async with self._roster.locked(agent) as held:
                cache = held.layers.cache
                held.observed += await asyncio.to_thread(cache.forget, prompts)

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
                made = self._current(agent)
                if made is None:
                    continue
                warm = agent in self._used
                self._used.discard(agent)
                try:
                    await self._backend.publish(agent, made, warm)
                except errors.SkillmeshError as error:
                    _log.warning("memory not renewed", agent=agent, reason=str(error))

    async def _saving(self) -> None:
        while True:
            await asyncio.sleep(_SAVE_S)
            await self._roster.save(_SAVE_AFTER)

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
