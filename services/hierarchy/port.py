"""What the service needs of the hierarchy that it serves, and the figures that it shows of it.

`LoRAHierarchy` has all of it; `Coordinator`, the metrics and the control plane know no more of it
than this.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from shared.hierarchy import levels, messages


@dataclasses.dataclass(frozen=True)
class Measure:
    """One figure of the hierarchy's health."""

    area: str
    """`entropy`, `bandwidth` or `resonance`."""
    name: str
    where: str
    """Level; empty for the whole."""
    value: float
    verdict: str
    """`healthy`, `warning` or `critical`."""
    message: str
    """What is wrong, and how it would be well; empty where it is."""


@dataclasses.dataclass(frozen=True)
class Action:
    """What was done about bad health."""

    tick: int
    kind: str
    where: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Health:
    """As of the last tick."""

    tick: int
    version: int
    verdict: str
    measures: tuple[Measure, ...]
    actions: tuple[Action, ...]
    """The latest, newest last."""


@dataclasses.dataclass(frozen=True)
class LayerState:
    """One shared layer."""

    level: levels.Level
    rank: int
    inertia: float
    entropy: float
    """As of the last tick of this process; 0 before."""
    optimum: float
    threshold: float
    """Screening threshold."""
    screened_share: float
    """Of its parameters."""
    norm: float
    """Frobenius, of the products A B."""
    frozen: bool
    parameters: int


@dataclasses.dataclass(frozen=True)
class QueueState:
    """Circuits that wait to move up."""

    source: levels.Level
    target: levels.Level
    depth: int
    longest_wait: int
    """Ticks."""
    bandwidth_left: float
    """Parameters that may move now."""


@dataclasses.dataclass(frozen=True)
class Totals:
    """What an agent brought."""

    settled: int
    """The last sequence that a tick settled."""
    examples: int
    refused: int
    """Submissions whose shared part was not taken."""


@dataclasses.dataclass(frozen=True)
class Waiting:
    """A submission that waits for the next tick."""

    agent: str
    size_bytes: int
    sequence: int


@dataclasses.dataclass(frozen=True)
class Tick:
    """What a tick did."""

    tick: int
    version: int
    submissions: int
    migrations: int


class Layers(Protocol):
    """The hierarchy; its methods may block, and are called from several threads."""

    def snapshot(self) -> messages.Snapshot:
        """The shared layers as the last tick left them."""
        ...

    def submit(self, submission: messages.Submission) -> bool:
        """Takes a submission, durably; false for one that was seen already."""
        ...

    def system_tick(self) -> Tick:
        """One tick, committed when it returns."""
        ...

    def settlements(self, agent: str, after: int) -> Sequence[messages.Settlement]:
        """Those of an agent above a sequence, in order; those up to it are kept no longer."""
        ...

    def last_sequence(self, agent: str) -> int:
        """Of an agent's submissions, settled or waiting; 0 before the first."""
        ...

    def totals(self, agent: str) -> Totals:
        """What an agent brought."""
        ...

    def waiting(self) -> Sequence[Waiting]:
        """Submissions that the next tick settles."""
        ...

    @property
    def has_work(self) -> bool:
        """Whether a tick would do more than let things decay."""
        ...

    def set_frozen(self, level: levels.Level, frozen: bool) -> None:
        """Freezes a shared layer, or thaws it."""
        ...

    def roll_back(self, version: int | None) -> None:
        """Goes back to a snapshot; None: the last healthy one."""
        ...

    def health(self) -> Health:
        """As of the last tick."""
        ...

    def layer_states(self) -> Sequence[LayerState]:
        """The shared layers."""
        ...

    def queue_states(self) -> Sequence[QueueState]:
        """The queues between layers."""
        ...

    def close(self) -> None:
        """Lets another process have its folder."""
        ...
