"""`LoRAHierarchy`: the layers that all agents share, moved by what agents submit, tick by tick.

A complementary learning system (McClelland et al. 1995) as a federation: agents learn on immutable
snapshots, submit changes, and a tick combines them (federated averaging with pseudo-gradients:
McMahan et al. 2017, Reddi et al. 2021). Safe to use from several threads: one tick runs at a time,
and reading and submitting never wait for it. With a journal nothing that was acknowledged is lost,
and a restart goes on to the bit as if there had been none. Knows nothing of messages or models.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import threading
import types
from collections.abc import Callable, Iterator, Mapping

import torch

from services.hierarchy import (
    archive,
    hierarchy_settings,
    isolation,
    journal,
    tick,
    tick_report,
    waiting,
)
from services.hierarchy import state as states
from shared import errors
from shared.hierarchy import levels, messages, packing, weights, wire
from shared.hierarchy.levels import Level


class LoRAHierarchy:
    """The foundation, domain and swarm layer, one instance for all agents."""

    def __init__(
        self,
        frame: wire.Frame,
        settings: hierarchy_settings.HierarchySettings | None = None,
        *,
        seed: int = 0,
        kept_in: journal.Journal | None = None,
        at: Callable[[str], None] = lambda point: None,
    ) -> None:
        """Takes up the state of the journal, where there is one; else layers at their start.

        Args:
            frame: modules, ranks and inertias.
            settings: constants and switches.
            seed: of the start values.
            kept_in: where state and submissions are kept; without one they end with the process.
            at: called with the name of each stage of a tick that has ended.

        Raises:
            errors.PreconditionError: the journal's state is of other layers.
            errors.IntegrityError: a file of the journal is missing or damaged.
            errors.OverloadedError: a new state does not fit on the disk.
        """
        self.frame = frame
        self.settings = settings or hierarchy_settings.HierarchySettings()
        self._at = at
        self._archive = archive.Archive(kept_in)
        self._waiting = waiting.Waiting(
            frame, kept_in, self.settings.most_waiting, self.settings.most_waiting_per_agent
        )
        self._state = states.State(frame, self.settings, seed, self._archive)
        self._tick_lock = threading.RLock()
        self._lock = threading.Lock()
        self._taken: dict[str, int] = {}
        """By agent the sequence up to which it has its settlements."""
        self._reports: collections.deque[tick_report.TickReport] = collections.deque(maxlen=64)
        if self._archive.load():
            self._restore(self._read_snapshots())
        else:
            self._commit([])
        self._publish()
        accounts = self._state.accounts
        settled = {agent: accounts.settled(agent) for agent in accounts.names()}
        self._waiting.load(settled, self._state.last_circuit)

    def snapshot(self, version: int | None = None) -> messages.Snapshot:
        """A snapshot, immutable: later ticks make others.

        Args:
            version: one that is still kept; the newest by default.

        Raises:
            errors.NotFoundError: it is not kept.
        """
        published = self._published
        wanted = max(published.kept) if version is None else version
        if wanted not in published.kept:
            raise errors.NotFoundError(
                f"snapshot {wanted} is not kept; there are {sorted(published.kept)}"
            )
        return published.kept[wanted]

    def forward(
        self,
        x: torch.Tensor,
        module: str,
        private: Mapping[Level, weights.Weights] | None = None,
    ) -> torch.Tensor:
        """What the layers add to a linear layer's output: the sum of x A B over the stack.

        Args:
            x: (..., in_features), float32: the layer's input.
            module: its path.
            private: the agent's own layers.

        Returns:
            (..., out_features), float32.

        Raises:
            errors.NotFoundError: the hierarchy has no such module.
        """
        if module not in self.frame.shapes:
            raise errors.NotFoundError(
                f"the hierarchy has no module {module!r}; it adapts {len(self.frame.shapes)}"
            )
        stack = {**self.snapshot().layers, **(private or {})}
        pairs = [stack[level][module] for level in levels.LEVELS if level in stack]
        left = torch.cat([pair.a for pair in pairs], dim=1)
        right = torch.cat([pair.b for pair in pairs], dim=0)
        return x @ left @ right

    def submit(self, submission: messages.Submission) -> bool:
        """Takes what an agent has learned; on disk when this returns, and part of the next tick.

        Returns:
            Whether it is new: a submission counts once, however often it is sent.

        Raises:
            errors.InvalidInputError: it does not fit; names what is wrong where.
            errors.CapacityError: there are as many agents as there may be.
            errors.OverloadedError: too many wait, or the disk is full: send it again later.
        """
        known = {*self._published.settled, *self._waiting.agents()}
        if submission.agent not in known and len(known) >= self.settings.most_agents:
            raise errors.CapacityError(
                f"agent {submission.agent!r}: the hierarchy has {len(known)} agents, as many as it "
                "may; raise hierarchy.most_agents"
            )
        return self._waiting.submit(submission, lambda agent: self._published.settled.get(agent, 0))

    def last_sequence(self, agent: str) -> int:
        """The highest sequence of an agent that is on disk; its next submission is above it."""
        return max(self._published.settled.get(agent, 0), self._waiting.last(agent))

    def settled_sequence(self, agent: str) -> int:
        """The highest sequence of an agent that a tick settled; 0 before the first."""
        return self._published.settled.get(agent, 0)

    def migrate_circuit(self, circuit: messages.Circuit) -> None:
        """Offers a circuit that is to go one level up; it is on disk when this returns.

        Raises:
            errors.InvalidInputError: it does not fit, or no layer of the hierarchy is above it.
            errors.OverloadedError: too many wait, or the disk is full.
        """
        if circuit.level in (Level.FOUNDATION, Level.CONTEXT):
            raise errors.InvalidInputError(
                f"circuit {circuit.id!r} lies in {circuit.level}, from which nothing moves here"
            )
        self._waiting.offer(circuit)

    def settlements(self, agent: str, after: int) -> tuple[messages.Settlement, ...]:
        """What became of an agent's submissions above a sequence, in order.

        Args:
            agent: its name.
            after: the last sequence whose settlement it has; those up to it are dropped.
        """
        with self._lock:
            self._taken[agent] = max(after, self._taken.get(agent, 0))
        return tuple(
            one for one in self._published.settlements.get(agent, ()) if one.sequence > after
        )

    def system_tick(self) -> tick_report.TickReport:
        """One tick: all stages over what waits, committed as a whole or not at all.

        Submissions that make it fail for a reason nobody foresaw are settled as refused, and it
        goes on without them; a defect that has nothing to do with them is raised.

        Raises:
            errors.OverloadedError: the disk is full; state, and what waits, are as before.
            errors.UnavailableError: another failure of the disk; the same holds.
        """
        with self._tick_lock:
            gathered, taken = self._waiting.gather(), self._taken_now()
            try:
                work, clock = self._run(isolation.Sound(gathered), taken)
            except Exception as error:
                if not isolation.is_input_to_blame(error):
                    raise
                attempt = functools.partial(self._attempt, taken=taken)
                work, clock = self._run(isolation.sound_part(gathered, attempt), taken)
            # In this order, so that what is sent again meanwhile is known by one of them.
            self._publish()
            self._waiting.took(work.gathered)
            self._waiting.took(work.culprits)
            self._forget_taken(taken)
            clock.ended("commit")
            report = tick_report.of(work, clock)
            self._reports.append(report)
            report.log()
            return report

    def _run(
        self, sound: isolation.Sound, taken: Mapping[str, int]
    ) -> tuple[tick.Work, tick_report.Stopwatch]:
        """Committed, or as if it had not been."""
        clock = tick_report.Stopwatch(self._at)
        work = tick.Work(
            self._state, sound.gathered, self._state.snapshot, sound.culprits, sound.reason
        )
        with self._restored_on_failure():
            for agent, after in taken.items():
                self._state.accounts.forget(agent, after)
            tick.run(work, clock.ended)
            self._commit(sound.gathered.names + sound.culprits.names)
        return work, clock

    def _attempt(self, gathered: waiting.Gathered, taken: Mapping[str, int]) -> None:
        """A tick of which nothing stays; raises what it fails with, committing included."""
        try:
            for agent, after in taken.items():
                self._state.accounts.forget(agent, after)
            tick.run(tick.Work(self._state, gathered, self._state.snapshot), lambda stage: None)
            packing.pack(self._state.parts(), self._state.values())
        finally:
            self._restore(self._published.kept)

    def reports(self) -> list[tick_report.TickReport]:
        """Of the last ticks of this process, oldest first."""
        return list(self._reports)

    def set_frozen(self, level: Level, frozen: bool) -> None:
        """Freezes or thaws a shared layer, at once; health does not thaw what was frozen here.

        Raises:
            errors.InvalidInputError: the layer is an agent's own.
        """
        if not level.is_shared:
            raise errors.InvalidInputError(f"{level} is no shared layer; there are {levels.SHARED}")
        with self._tick_lock, self._restored_on_failure():
            state = self._state
            state.layers[level].frozen = frozen
            state.frozen_by_hand = state.frozen_by_hand - {level} | ({level} if frozen else set())
            self._commit([])
            self._publish()

    def roll_back(self, version: int | None = None) -> int:
        """Goes back to the layers of a kept snapshot, as a new version.

        Args:
            version: the last healthy one by default.

        Returns:
            The new version.

        Raises:
            errors.NotFoundError: it is not kept.
        """
        with self._tick_lock, self._restored_on_failure():
            self._state.roll_back(version)
            self._state.publish()
            self._state.prune()
            self._commit([])
            self._publish()
            return self._state.version

    def digest(self) -> str:
        """SHA-256 of the committed state: equal states have equal digests."""
        return self._archive.committed.digest()

    @property
    def state(self) -> states.State:
        """For reading, between ticks."""
        return self._state

    @property
    def waiting(self) -> int:
        """How many submissions wait for the next tick."""
        return len(self._waiting)

    def waiting_submissions(self) -> tuple[messages.Submission, ...]:
        """Those that wait for the next tick."""
        return self._waiting.gather().submissions

    def _commit(self, taken: list[str]) -> None:
        state = self._state
        self._archive.commit(
            state.parts(), state.values(), state.kept_parts(), taken, pin=state.healthy
        )

    def _publish(self) -> None:
        accounts = self._state.accounts
        names = accounts.names()
        self._published = _Published(
            dict(self._state.kept),
            {agent: accounts.settled(agent) for agent in names},
            {agent: accounts.settlements(agent, 0) for agent in names},
        )

    def _taken_now(self) -> dict[str, int]:
        with self._lock:
            return dict(sorted(self._taken.items()))

    def _forget_taken(self, done: Mapping[str, int]) -> None:
        with self._lock:
            for agent, after in done.items():
                if self._taken[agent] == after:
                    del self._taken[agent]

    @contextlib.contextmanager
    def _restored_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._restore(self._published.kept)
            raise

    def _restore(self, kept: Mapping[int, messages.Snapshot]) -> None:
        committed = self._archive.committed
        self._state.restore(committed.parts, committed.values, kept)

    def _read_snapshots(self) -> dict[int, messages.Snapshot]:
        """The kept ones; layers that several share are read once."""
        found: dict[tuple[Level, tuple[int, ...]], weights.Weights] = {}
        kept = {}
        for version, lies in sorted(self._archive.committed.kept.items()):
            parts = self._archive.parts_of(version)
            layers = {}
            for level in levels.SHARED:
                at = tuple(lies[name] for name in sorted(lies) if name.startswith(f"{level}/"))
                if (level, at) not in found:
                    found[level, at] = self._state.read_layer(level, parts)
                layers[level] = found[level, at]
            kept[version] = messages.Snapshot(version, types.MappingProxyType(layers))
        return kept


@dataclasses.dataclass(frozen=True)
class _Published:
    """What is read without waiting for a tick; replaced as a whole."""

    kept: Mapping[int, messages.Snapshot]
    settled: Mapping[str, int]
    settlements: Mapping[str, tuple[messages.Settlement, ...]]
