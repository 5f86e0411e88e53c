"""What waits for the next tick: submissions of agents and circuits that were offered.

Each is on disk before it is acknowledged. A submission counts once, by agent and sequence. Safe to
use from several threads: a tick takes what is here when it begins, and only when it is committed
does that leave.
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Callable, Mapping

from services.hierarchy import journal
from shared import errors
from shared.hierarchy import messages, packing, wire


@dataclasses.dataclass(frozen=True)
class Gathered:
    """What one tick takes."""

    submissions: tuple[messages.Submission, ...]
    """By agent, then by sequence."""
    circuits: Mapping[int, messages.Circuit]
    """Offered ones, by number, in order."""

    @property
    def names(self) -> list[str]:
        """In the journal."""
        names = [_submission_name(one.agent, one.sequence) for one in self.submissions]
        return names + [_circuit_name(number) for number in self.circuits]


_MOST_CIRCUITS = 2**16
"""Of a submission that was taken, whatever the limit was."""
NOTHING = Gathered((), {})


class Waiting:
    """Bounded in number, for each agent and together."""

    def __init__(
        self, frame: wire.Frame, kept_in: journal.Journal | None, most: int, most_per_agent: int
    ) -> None:
        """Empty.

        Args:
            frame: what a submission has to fit.
            kept_in: the journal; without one everything ends with the process.
            most: submissions, and circuits, that may wait.
            most_per_agent: submissions of one agent.
        """
        self._frame, self._journal = frame, kept_in
        self._most, self._most_per_agent = most, most_per_agent
        self._lock = threading.Lock()
        self._submissions: dict[tuple[str, int], messages.Submission] = {}
        self._circuits: dict[int, messages.Circuit] = {}
        self._last_circuit = 0

    def __len__(self) -> int:
        """Submissions."""
        return len(self._submissions)

    def agents(self) -> list[str]:
        """Those of whom something waits."""
        with self._lock:
            return sorted({agent for agent, _ in self._submissions})

    def load(self, settled: Mapping[str, int], last_circuit: int) -> None:
        """Reads what waited when the process before this one ended.

        Args:
            settled: by agent the last sequence that is part of the state; those up to it go.
            last_circuit: number of the last offered circuit that is part of the state.

        Raises:
            errors.IntegrityError: a file is damaged.
            errors.InvalidInputError: one was made for other layers.
        """
        self._last_circuit = last_circuit
        if self._journal is None:
            return
        # What was acknowledged stays so under a limit that is lower now.
        frame = dataclasses.replace(self._frame, most_circuits=_MOST_CIRCUITS)
        for name, data in list(self._journal.waiting()):
            if name.startswith("circuit"):
                number, circuit = self._read_circuit(data)
                done = number <= last_circuit
                if not done:
                    self._circuits[number] = circuit
                    self._last_circuit = max(self._last_circuit, number)
            else:
                one = wire.submission_from_bytes(data, frame)
                done = one.sequence <= settled.get(one.agent, 0)
                if not done:
                    self._submissions[one.agent, one.sequence] = one
            if done:
                self._journal.remove([name])

    def last(self, agent: str) -> int:
        """The highest sequence of an agent that waits; 0 where none does."""
        with self._lock:
            return self._last(agent)

    def submit(self, submission: messages.Submission, settled: Callable[[str], int]) -> bool:
        """Keeps a submission until a tick takes it.

        Args:
            submission: checked in full here.
            settled: gives the last sequence of an agent that is part of the state, as of a state
                that is published before `took` is called.

        Returns:
            Whether it is new; one that is not counts once all the same.

        Raises:
            errors.OverloadedError: too many wait, or the disk is full; nothing was kept.
            errors.InvalidInputError: it does not fit the layers; says what is wrong where.
        """
        # What is kept is what the bytes say, as after a restart: in order, aligned, nobody else's.
        data = wire.submission_to_bytes(submission)
        kept = wire.submission_from_bytes(data, self._frame)
        with self._lock:
            if kept.sequence <= max(settled(kept.agent), self._last(kept.agent)):
                return False
            own = sum(agent == kept.agent for agent, _ in self._submissions)
            if own >= self._most_per_agent or len(self._submissions) >= self._most:
                raise errors.OverloadedError(
                    f"agent {kept.agent!r}: {own} of its and {len(self._submissions)} submissions "
                    "in all wait for a tick, as many as may; send it again after the next"
                )
            if self._journal is not None:
                self._journal.keep(_submission_name(kept.agent, kept.sequence), data)
            self._submissions[kept.agent, kept.sequence] = kept
            return True

    def offer(self, circuit: messages.Circuit) -> None:
        """Keeps a circuit that is to move up until a tick takes it; one whose id waits is the same.

        Raises:
            errors.OverloadedError: too many wait, or the disk is full; nothing was kept.
            errors.InvalidInputError: it does not fit the layers.
        """
        with self._lock:
            if any(circuit.id == held.id for held in self._circuits.values()):
                return
            if len(self._circuits) >= self._most:
                raise errors.OverloadedError(
                    f"{len(self._circuits)} offered circuits wait for a tick, as many as may; "
                    "offer it again after the next"
                )
            number = self._last_circuit + 1
            tensors: dict[str, packing.Named] = {}
            values = {"number": number, "circuits": wire.put_circuits([circuit], tensors)}
            data = packing.pack(tensors, values)
            _, kept = self._read_circuit(data)
            if self._journal is not None:
                self._journal.keep(_circuit_name(number), data)
            self._circuits[number] = kept
            self._last_circuit = number

    def gather(self) -> Gathered:
        """All that waits now."""
        with self._lock:
            submissions = tuple(self._submissions[key] for key in sorted(self._submissions))
            return Gathered(submissions, dict(sorted(self._circuits.items())))

    def took(self, gathered: Gathered) -> None:
        """A committed state has what was gathered: it waits no more."""
        with self._lock:
            for one in gathered.submissions:
                self._submissions.pop((one.agent, one.sequence), None)
            for number in gathered.circuits:
                self._circuits.pop(number, None)

    def _last(self, agent: str) -> int:
        return max((at for name, at in self._submissions if name == agent), default=0)

    def _read_circuit(self, data: bytes) -> tuple[int, messages.Circuit]:
        tensors, values = packing.unpack(data, "offered circuit", self._frame.most_bytes)
        [circuit] = wire.take_circuits(values["circuits"], tensors, self._frame, "offered circuit")
        return values["number"], circuit


def _submission_name(agent: str, sequence: int) -> str:
    # Agents' names may hold anything; the file's name is for telling apart alone.
    digest = hashlib.blake2b(agent.encode(), digest_size=16).hexdigest()
    return f"submission-{digest}-{sequence:016d}.arrow"


def _circuit_name(number: int) -> str:
    return f"circuit-{number:016d}.arrow"
