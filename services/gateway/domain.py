"""What the command line shows: answers, learning tasks, cards, swaps, as plain frozen values.

Knows nothing about protobuf; see `peers`.
"""

from __future__ import annotations

import dataclasses

from shared import costs

COMPLETED, FAILED, CANCELLED = "COMPLETED", "FAILED", "CANCELLED"
ENDED = (COMPLETED, FAILED, CANCELLED)


@dataclasses.dataclass(frozen=True)
class Answer:
    """What an inference node answered."""

    text: str
    card: str
    """`name@digest`; empty where the bare base model answered."""
    confidence: float
    dissonance: bool
    event_id: str
    """Of the dissonance event; empty where none left."""
    rewritten_query: str = ""
    """What the card was asked; empty where it was the question itself."""
    shares: tuple[tuple[str, float], ...] = ()
    """All cards that answered, merged, with their weights; the heaviest first."""
    memory: str = ""
    """AGENT@VERSION whose memory took part; empty without one."""


@dataclasses.dataclass(frozen=True)
class StageTime:
    """How long one stage of a task took."""

    stage: str
    seconds: float


@dataclasses.dataclass(frozen=True)
class Task:
    """One learning task."""

    id: str
    trigger_query: str
    other_queries: tuple[str, ...]
    domain: str
    priority: int
    status: str
    card: str
    error: str
    progress: float
    """0 to 1 within the status."""
    detail: str
    stage_times: tuple[StageTime, ...]
    created_at_ms: int
    """Unix time."""
    updated_at_ms: int
    retry_of: str
    spent: costs.Spent = costs.NOTHING
    """What its teachers cost."""
    joined_into: str = ""
    """The task that learns its questions, and ends as it does."""
    repository: str = ""
    """The code base to be learned."""
    commit_id: str = ""
    """That it was read at."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in ENDED


@dataclasses.dataclass(frozen=True)
class Card:
    """One card in the store."""

    name: str
    digest: str
    version: str
    domain: str
    description: str
    size_bytes: int
    created_at_ms: int
    """Unix time."""
    aliases: tuple[str, ...]

    @property
    def reference(self) -> str:
        """`name@digest`."""
        return f"{self.name}@{self.digest}"


@dataclasses.dataclass(frozen=True)
class CodeBase:
    """What samples were made from."""

    repository: str
    commit_id: str
    licence: str
    """SPDX; empty where the repository does not say."""
    teacher: str
    files: int
    """That were read,"""
    lines: int
    """and their lines."""
    chunks: int
    """Definitions that samples were made from."""
    samples: dict[str, int]
    """By kind."""
    held_out: int
    """Of the samples."""
    removed: dict[str, int]
    """Secrets that were taken out, by kind."""
    skipped: dict[str, int]
    """Files left out, by reason."""
    rejected: dict[str, int]
    """Samples that did not pass a check, by reason."""
    samples_digest: str
    """Of the dataset in the card store."""
    folder: str
    """On the distiller's machine, with the dataset in all its forms."""


@dataclasses.dataclass(frozen=True)
class Swap:
    """How fast an inference node took in a card."""

    card: str
    fetch_ms: float
    swap_ms: float


@dataclasses.dataclass(frozen=True)
class Node:
    """One inference node."""

    base_model: str
    served: tuple[str, ...]
    """Cards that requests may choose, `name@digest`."""
    resident: tuple[str, ...]
    """Those of them that are in memory."""
    revision: int
    store_connected: bool
    swaps: tuple[Swap, ...]


@dataclasses.dataclass(frozen=True)
class Agent:
    """An agent of the node, and what it has learned."""

    agent: str
    memory: str
    """AGENT@VERSION: what its next answer is given with."""
    examples: int
    """Questions that it learned the answers of."""
    queued: int
    """Questions that it has still to learn."""
    rounds: int
    is_settled: bool
    """Whether everything that it sent to the hierarchy came back."""
    mark: str
    """Of its last settlement: fast_track, normal or conflict."""
    hit_rate: float
    connected: bool
    """Whether the hierarchy is there."""
    refused: str
    """Why the hierarchy does not take what it learns; empty where it does."""
    given_up_count: int
    """Questions whose answers it could not learn or keep."""
    given_up: tuple[tuple[str, str], ...] = ()
    """The latest of them, each with the reason, where one agent was asked for."""

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to learn."""
        return self.queued == 0 and self.is_settled


@dataclasses.dataclass(frozen=True)
class Hierarchy:
    """The layers that agents share."""

    version: int
    """Of the newest snapshot."""
    tick: int
    agents: int
    waiting: int
    """Submissions that the next tick settles."""
    verdict: str
    """`healthy`, or what is wrong with the whole."""
    frozen: tuple[str, ...]
    """Levels."""


@dataclasses.dataclass(frozen=True)
class NightlySkill:
    """Tasks of a nightly batch that are learned as one."""

    task_ids: tuple[str, ...]
    """The first learns the questions of all."""
    domain: str
    teacher: str
    """Asked first; empty for the first one configured."""
    base: str


@dataclasses.dataclass(frozen=True)
class Teacher:
    """One teacher of the chain."""

    name: str
    circuit: str
    """closed, open or half-open."""
    reason: str
    """Why it is not closed."""
    open_for_s: float
    """Nobody asks it for so long."""


@dataclasses.dataclass(frozen=True)
class Teachers:
    """Who teaches, and what that cost today (UTC)."""

    chain: tuple[Teacher, ...]
    today: costs.Spent


@dataclasses.dataclass(frozen=True)
class Store:
    """The card store."""

    revision: int
    cards: int
    size_bytes: int
