"""`Learner`: agents learn what they were told until they answer it, and again what they lost.

    queue -> a round -> settled, and the snapshot is here -> tried -> a lesson, or another round

One round waits for the settlement of the one before: only then do the layers stand where the next
one is to begin. A pair leaves the queue when the agent answers it right, and the shared layers
alone do, too, so that the others know it. An agent with an empty queue tries its lessons now and
then; what others' learning took from it is queued again. Knows nothing of what a round does.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Protocol

import structlog

from services.inference.agents import feedback, ledger, lines, roster
from shared import errors
from shared.hierarchy import learning, levels, messages, stack, weights, wire

_LOOK_S = 0.5
"""So often it is looked whether an agent may learn now."""
_AFTER_FAILURE_S = 30.0
_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True)
class Learned:
    """What a round gave."""

    gradients: Mapping[levels.Level, weights.Delta]
    """Of all layers, (dA, dB) by module, as without inertia."""
    loss: float
    moments: learning.Moments | None = None
    """For the agent's next round."""


@dataclasses.dataclass(frozen=True)
class Tried:
    """Whether a question is answered right, word for word."""

    by_agent: bool
    """With all layers."""
    by_shared: bool
    """With those alone that every agent has."""


class Learning(Protocol):
    """What learns on the model; `rounds.Rounds` is one."""

    async def check(self, pairs: Sequence[feedback.Pair]) -> list[tuple[int, ...]]:
        """Checks that pairs can be learned at all; returns the questions' token ids, as asked.

        Raises:
            errors.InvalidInputError: one is too long.
        """
        ...

    async def tried(self, layers: stack.Stack, pairs: Sequence[feedback.Pair]) -> list[Tried]:
        """Whether pairs are answered right; the layers stay as they are."""
        ...

    async def learn(
        self,
        layers: stack.Stack,
        pairs: Sequence[feedback.Pair],
        kept: Sequence[feedback.Pair],
        seed: int,
        moments: learning.Moments | None,
    ) -> Learned:
        """A round on pairs, with some of those that are kept; the layers stay as they are."""
        ...


@dataclasses.dataclass(frozen=True)
class LearnerSettings:
    """How agents learn."""

    rounds: int = 40
    """In which a pair may take part; what is wrong then is given up."""
    least_rounds: int = 2
    """In which a pair takes part even if it is answered right before."""
    pairs: int = 32
    """Of feedback in one round."""
    looked_at: int = 32
    """Lessons that an agent with nothing new tries."""
    look_s: float = 60.0
    """So long it rests between two such looks."""
    again: int = 3
    """So often a lesson that was lost is learned again; then it is contested, and given up."""


class Learner:
    """Of one node; belongs to the event loop."""

    def __init__(
        self,
        kept: ledger.Ledger,
        known: roster.Roster,
        learns: Learning,
        settings: LearnerSettings,
    ) -> None:
        """Prepares; `run` learns.

        Args:
            kept: what is on disk.
            known: the agents.
            learns: learns on the model.
            settings: how they learn.
        """
        self._kept, self._roster, self._learns = kept, known, learns
        self._settings = settings
        self._work = asyncio.Event()
        self._failed_until: dict[str, float] = {}
        self.snapshot: messages.Snapshot | None = None
        """The shared layers; nothing is learned before they are here."""

    def look(self) -> None:
        """Something has changed: some agent may go on."""
        self._work.set()

    async def run(self, line: lines.Line) -> None:
        """Learns for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._work.wait()
            self._work.clear()
            waiting = await asyncio.to_thread(self._kept.counts)
            for agent in [*waiting, *self._idle(waiting)]:
                await self._turn(agent, line)

    async def _turn(self, agent: str, line: lines.Line) -> None:
        now = asyncio.get_running_loop().time()
        if self._failed_until.get(agent, 0.0) > now:
            return
        try:
            await self._go_on(agent, line)
            self._failed_until.pop(agent, None)
        except errors.NotFoundError:
            self._failed_until.pop(agent, None)  # It was forgotten.
        except Exception as error:
            # One agent's trouble must not end the others' learning.
            self._failed_until[agent] = now + _AFTER_FAILURE_S
            expected = isinstance(error, errors.SkillmeshError)
            tell = _log.warning if expected else _log.exception
            tell("round failed", agent=agent, reason=str(error))

    def _idle(self, waiting: Mapping[str, int]) -> list[str]:
        """Agents in memory that may have lost to others' learning what they had learned."""
        due = asyncio.get_running_loop().time() - self._settings.look_s
        version = -1 if self.snapshot is None else self.snapshot.version
        return [
            agent
            for agent, record in self._roster.records.items()
            if agent not in waiting and record.examples
            if (held := self._roster.in_memory(agent)) is not None
            and held.looked_at_version != version
            and held.looked_at_s <= due
        ]

    async def _go_on(self, agent: str, line: lines.Line) -> None:
        snapshot = self.snapshot
        if snapshot is None or not line.has_room:
            return
        held = await self._roster.get(agent)
        at = line.position(agent)
        # Before it has joined nobody knows the number of its next submission.
        if held.layers.unsettled or not (at.joined or held.layers.sequence):
            return
        if snapshot.version < held.settled_version:
            return  # The one that holds its last round is on its way.
        held.busy += 1
        try:
            layers = self._roster.stack(agent, held, snapshot)
            queued = await asyncio.to_thread(self._kept.queued, agent, self._settings.pairs)
            if queued:
                if wrong := await self._try(agent, layers, queued):
                    await self._learn(agent, held, layers, snapshot, line, wrong)
            else:
                await self._look(agent, layers)
            held.looked_at_version = snapshot.version
            held.looked_at_s = asyncio.get_running_loop().time()
        finally:
            held.busy -= 1

    async def _try(
        self, agent: str, layers: stack.Stack, queued: Sequence[feedback.Queued]
    ) -> list[feedback.Queued]:
        """Lets go of what is learned, and of what won't be; returns the rest."""
        ready = [one for one in queued if one.taken >= self._settings.least_rounds or one.left <= 0]
        tried = await self._learns.tried(layers, [one.pair for one in ready]) if ready else []
        left: dict[int, feedback.Reason | None] = {}
        for one, found in zip(ready, tried, strict=True):
            if found.by_agent and (found.by_shared or one.left <= 0):
                left[one.id] = None
                if not found.by_shared:
                    _log.info("learned, but not by others", agent=agent, pair=one.id)
            elif one.left <= 0:
                left[one.id] = feedback.Reason.ROUNDS
                _log.warning("given up", agent=agent, pair=one.id, rounds=one.taken)
        if left:
            examples = await asyncio.to_thread(self._kept.leave, agent, left)
            self._roster.learned(agent, examples)
            self._work.set()
        return [one for one in queued if one.id not in left]

    async def _look(self, agent: str, layers: stack.Stack) -> None:
        """Tries some of what an agent has learned; what it has lost is queued."""
        lessons = await asyncio.to_thread(self._kept.lessons, agent)
        rng = random.Random(layers.version)
        chosen = rng.sample(list(lessons), min(len(lessons), self._settings.looked_at))
        if not chosen:
            return
        tried = await self._learns.tried(layers, [lessons[one] for one in chosen])
        right = [one for one, found in zip(chosen, tried, strict=True) if found.by_agent]
        wrong = [one for one, found in zip(chosen, tried, strict=True) if not found.by_agent]
        settings = self._settings
        again = await asyncio.to_thread(
            self._kept.looked, agent, right, wrong, settings.rounds, settings.again
        )
        if wrong:
            _log.info("lost to others", agent=agent, learned_again=again, of=len(chosen))
        if again < len(wrong):
            _log.warning("contested", agent=agent, given_up=len(wrong) - again)
        if again:
            self._work.set()

    async def _learn(
        self,
        agent: str,
        held: roster.Held,
        layers: stack.Stack,
        snapshot: messages.Snapshot,
        line: lines.Line,
        queued: list[feedback.Queued],
    ) -> None:
        lessons = list((await asyncio.to_thread(self._kept.lessons, agent)).values())
        pairs = [one.pair for one in queued]
        rounds = self._roster.known(agent).rounds
        found = await self._learns.learn(layers, pairs, lessons, rounds, held.moments)
        async with held.lock:
            if self._roster.in_memory(agent) is not held:
                return  # It was forgotten.
            held.moments = found.moments
            own = held.layers
            own.sequence = max(own.sequence, line.position(agent).sent)
            own.learned(
                snapshot.version,
                {level: one for level, one in found.gradients.items() if level.is_shared},
                {level: one for level, one in found.gradients.items() if not level.is_shared},
                len(queued),
            )
            submission = own.submission()
            record = self._roster.known(agent)
            record = dataclasses.replace(record, rounds=record.rounds + 1)
            outgoing = None
            if submission is not None:
                outgoing = submission.sequence, wire.submission_to_bytes(submission)
            await self._roster.commit(agent, held, record, queued, outgoing)
        if submission is not None:
            line.submit(submission)
            await asyncio.to_thread(self._kept.taken_over, agent, submission.sequence)
        _log.info("round learned", agent=agent, pairs=len(queued), loss=round(found.loss, 4))
