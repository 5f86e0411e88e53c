"""`Coordinator`: one hierarchy as its nodes and operators see it.

Stands between the two planes, which translate, and `LoRAHierarchy`, which learns: makes the
hierarchy once the first agent brings its shapes, lets submissions in, makes ticks by a timer, turns
each new snapshot into a file, and tells those who watch.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import pathlib
import time
from collections.abc import AsyncGenerator, Callable, Mapping

import structlog

from services.hierarchy import admission, members, news, port, presence, snapshot_files
from shared import errors
from shared.hierarchy import levels, wire

HEARTBEAT_S = 2.0
_KEYS_KEPT = 256
_FAILED_PAUSE_S = 5.0
"""Between ticks while they fail: the disk may be full."""
_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True)
class Joined:
    """What an agent is told when it joins."""

    specs: Mapping[levels.Level, levels.Spec]
    snapshot: snapshot_files.Ticket
    last_sequence: int
    """Of its submissions."""


@dataclasses.dataclass(frozen=True)
class Ticked:
    """A tick that was made."""

    report: port.Tick
    seconds: float


@dataclasses.dataclass(frozen=True)
class Activity:
    """Of one agent, since the process began."""

    taken: int
    """Submissions."""
    refused: int
    """Submissions that a limit or a rule turned away."""
    seen_at_ms: int
    """Unix time of its last submission or joining; 0 before the first."""


class Coordinator:
    """Its coroutines belong to one loop; `submit` and `snapshot_file` to any thread."""

    def __init__(
        self,
        known: members.Members,
        gate: admission.Admission,
        files: snapshot_files.SnapshotFiles,
        make: Callable[[wire.Frame], port.Layers],
        tick_s: float,
        clock_s: Callable[[], float] = time.monotonic,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        """Takes its parts.

        Args:
            known: the agents, and the frame if there is one.
            gate: how much they may send.
            files: gets each new snapshot.
            make: makes the hierarchy of a frame, or opens the one that is kept.
            tick_s: between ticks, where there is anything to do.
            clock_s: seconds, monotonic.
            clock_ms: Unix time in milliseconds.
            heartbeat_s: how long a watcher hears nothing at most.
        """
        self.members, self._gate, self._files, self._make = known, gate, files, make
        self._tick_s, self._clock_s = tick_s, clock_s
        self._clock_ms, self._heartbeat_s = clock_ms, heartbeat_s
        self._layers: port.Layers | None = None
        self._making, self._ticking = asyncio.Lock(), asyncio.Lock()
        self._changed, self._stopping = asyncio.Event(), asyncio.Event()
        self._closed = False
        self._answered: collections.OrderedDict[tuple[str, str], Ticked | None] = (
            collections.OrderedDict()
        )
        self._ticks: set[asyncio.Task[Ticked]] = set()
        self._seen_at_ms: dict[str, int] = {}
        self._presence = presence.Presence()
        self._taken: dict[str, int] = {}
        self.failed_ticks = 0
        """Since the process began."""

    async def open(self) -> None:
        """Opens the hierarchy that is kept, if there is one.

        Raises:
            errors.SkillmeshError: it can't be read.
        """
        if (frame := self.members.frame) is not None:
            await self._open(frame)

    async def _open(self, frame: wire.Frame) -> port.Layers:
        layers = await asyncio.to_thread(self._make, frame)
        for waiting in layers.waiting():
            self._gate.restore(waiting.agent, waiting.size_bytes, waiting.sequence)
        await asyncio.to_thread(self._publish, layers)
        self._layers = layers
        return layers

    def end_watches(self) -> None:
        """Ends every watch and lets nothing begin, so that servers can stop."""
        self._closed = True
        self._stopping.set()
        self._tell()

    async def close(self) -> None:
        """Closes the hierarchy, once the tick under way has ended."""
        self.end_watches()
        async with self._ticking:
            if self._layers is not None:
                await asyncio.to_thread(self._layers.close)
                self._layers = None

    @property
    def layers(self) -> port.Layers | None:
        """None until the first agent joined."""
        return self._layers

    async def join(self, agent: str, node: str, owner: str, base: members.Base) -> Joined:
        """Makes an agent known.

        Raises:
            errors.SkillmeshError: as `Members.join` and `Presence.check`, or it can't be made.
        """
        self._presence.check(agent, node)
        await asyncio.to_thread(self.members.join, agent, node, owner, base)
        self._presence.joined(agent, node)
        async with self._making:
            layers, frame = self._layers, self.members.frame
            assert frame is not None
            if layers is None:
                self._check_open()
                layers = await self._open(frame)
        self._seen_at_ms[agent] = self._clock_ms()
        ticket = self._files.newest
        assert ticket is not None
        return Joined(frame.specs, ticket, layers.last_sequence(agent))

    def submit(
        self, agent: str, owner: str, sequence: int, size_bytes: int, receive: Callable[[], bytes]
    ) -> bool:
        """Takes a submission in; blocks.

        Args:
            agent: that it is of.
            owner: who sends it.
            sequence: of it; the same again changes nothing.
            size_bytes: that were announced.
            receive: gives its bytes; called once it is admitted.

        Returns:
            Whether it is new.

        Raises:
            errors.PreconditionError: the agent has not joined.
            errors.ForbiddenError: the agent is somebody else's.
            errors.OverloadedError: a limit is reached; send it later.
            errors.InvalidInputError: the submission is wrong.
        """
        self.members.check(agent, owner)
        layers, frame = self._layers, self.members.frame
        if layers is None or frame is None:
            raise errors.UnavailableError("the hierarchy starts or stops; try again")
        with self._gate.admitted(agent, size_bytes) as entry:
            submission = wire.submission_from_bytes(receive(), frame)
            if (submission.agent, submission.sequence) != (agent, sequence):
                raise errors.InvalidInputError(
                    f"the submission is {submission.agent!r}'s number {submission.sequence}, its "
                    f"command says {agent!r}'s {sequence}"
                )
            entry.sequence, entry.taken = sequence, layers.submit(submission)
            self._seen_at_ms[agent] = self._clock_ms()
            self._taken[agent] = self._taken.get(agent, 0) + entry.taken
        # A tick may have taken it before it was counted as waiting.
        self._settle(layers)
        return entry.taken

    async def tick(self, key: str = "") -> Ticked:
        """One tick now.

        Args:
            key: of idempotency; the same again returns what the first call made.

        Raises:
            errors.PreconditionError: no agent has joined.
            errors.SkillmeshError: it could not be committed; nothing changed.
        """
        # Whoever gave up waiting for it must not have it half done.
        tick = asyncio.create_task(self._tick(key))
        self._ticks.add(tick)
        tick.add_done_callback(self._ticks.discard)
        return await asyncio.shield(tick)

    async def _tick(self, key: str) -> Ticked:
        async with self._ticking:
            layers = self._opened()
            done = self._answered.get(("tick", key)) if key else None
            if done is not None:
                return done
            began_s = self._clock_s()
            report = await asyncio.to_thread(layers.system_tick)
            self._settle(layers)
            await asyncio.to_thread(self._publish, layers)
            ticked = Ticked(report, self._clock_s() - began_s)
            self._answer(("tick", key), ticked)
        self._tell()
        return ticked

    async def run(self) -> None:
        """Makes ticks by the timer until watches end."""
        pause_s = self._tick_s
        while not await self._stops_within(pause_s):
            pause_s = self._tick_s
            if self._layers is None:
                continue
            try:
                if self._layers.has_work:
                    await self.tick()
                elif not self._is_published(self._layers):
                    await self._publish_late(self._layers)
            except Exception as error:
                # The service must outlive a full disk, and a defect in one mechanism.
                self.failed_ticks += 1
                if isinstance(error, errors.SkillmeshError):
                    _log.error("tick failed; trying again", reason=str(error))
                else:
                    _log.exception("tick failed; trying again")
                pause_s = max(pause_s, _FAILED_PAUSE_S)

    async def _stops_within(self, pause_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._stopping.wait()
        return self._closed

    async def set_frozen(self, level: levels.Level, frozen: bool) -> None:
        """Freezes a shared layer, or thaws it.

        Raises:
            errors.PreconditionError: no agent has joined.
            errors.InvalidInputError: the layer is not shared.
        """
        if not level.is_shared:
            raise errors.InvalidInputError(
                f"level {level} is each agent's own; {', '.join(levels.SHARED)} can be frozen here"
            )
        async with self._ticking:
            await asyncio.to_thread(self._opened().set_frozen, level, frozen)

    async def roll_back(self, version: int, key: str = "") -> None:
        """Goes back to a snapshot.

        Args:
            version: of it; 0: the last healthy one.
            key: of idempotency; the same again changes nothing.

        Raises:
            errors.PreconditionError: no agent has joined, or there is no healthy snapshot.
            errors.NotFoundError: the version is not kept.
        """
        async with self._ticking:
            layers = self._opened()
            if key and ("roll back", key) in self._answered:
                return
            await asyncio.to_thread(layers.roll_back, version or None)
            await asyncio.to_thread(self._publish, layers)
            self._answer(("roll back", key), None)
        self._tell()

    async def watch(
        self, positions: Mapping[str, int], owner: str
    ) -> AsyncGenerator[news.News, None]:
        """The newest snapshot and settlements, now and whenever there are others.

        Args:
            positions: agent to the last sequence whose settlement it took.
            owner: who watches.

        Raises:
            errors.PreconditionError: an agent has not joined.
            errors.ForbiddenError: an agent is somebody else's.
            errors.UnavailableError: the hierarchy stops; watch again.
        """
        for agent in positions:
            self.members.check(agent, owner)
        told, digest = dict(positions), ""
        with self._presence.watching(positions):
            while True:
                changed = self._changed  # Before anything is read: what changes meanwhile sets it.
                self._check_open()
                layers = self._layers
                found = (
                    await asyncio.to_thread(news.untold, layers, positions, told) if layers else []
                )
                ticket = self._files.newest
                is_new = ticket is not None and ticket.digest != digest
                if is_new or found:
                    digest = ticket.digest if ticket else ""
                    for settlement in found:
                        told[settlement.agent] = settlement.sequence
                    yield news.News(ticket if is_new else None, tuple(found))
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._heartbeat_s):
                        await changed.wait()
                        continue
                yield news.News()

    def snapshot_file(self, digest: str) -> pathlib.Path:
        """The file of a snapshot's ticket; from any thread.

        Raises:
            errors.NotFoundError: there is none, or none any more.
        """
        return self._files.path(digest)

    def activity(self, agent: str) -> Activity:
        """What an agent did since the process began."""
        return Activity(
            self._taken.get(agent, 0),
            self._gate.refused.get(agent, 0),
            self._seen_at_ms.get(agent, 0),
        )

    @property
    def waiting(self) -> int:
        """Submissions that the next tick takes."""
        return len(self._gate.waiting())

    @property
    def newest(self) -> snapshot_files.Ticket | None:
        """The newest snapshot; None before the first."""
        return self._files.newest

    def _settle(self, layers: port.Layers) -> None:
        """Ends the wait of whatever a tick has settled."""
        self._gate.settle(
            [
                entry
                for entry in self._gate.waiting()
                if entry.sequence <= layers.totals(entry.agent).settled
            ]
        )

    async def _publish_late(self, layers: port.Layers) -> None:
        """Makes the file of a snapshot whose tick ended without it: the disk was full."""
        async with self._ticking:
            await asyncio.to_thread(self._publish, layers)
        self._tell()

    def _publish(self, layers: port.Layers) -> None:
        if not self._is_published(layers):
            snapshot = layers.snapshot()
            self._files.publish(snapshot.version, wire.snapshot_to_bytes(snapshot))

    def _is_published(self, layers: port.Layers) -> bool:
        newest = self._files.newest
        return newest is not None and newest.version == layers.snapshot().version

    def _opened(self) -> port.Layers:
        self._check_open()
        if self._layers is None:
            raise errors.PreconditionError("no agent has joined yet, so that there are no layers")
        return self._layers

    def _check_open(self) -> None:
        if self._closed:
            raise errors.UnavailableError("the hierarchy stops; try again")

    def _answer(self, key: tuple[str, str], answer: Ticked | None) -> None:
        if key[1]:
            self._answered[key] = answer
            while len(self._answered) > _KEYS_KEPT:
                self._answered.popitem(last=False)

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
