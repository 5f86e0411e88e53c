"""What the factory asks of other services, and what they answer, without a word of protobuf.

The values are recorded by DBOS as JSON, so they hold nothing but text, numbers and one another.
`clients` implements the protocols over gRPC; tests implement them by hand.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from services.factory import feedback
from shared import costs

OnProgress = Callable[[float, str], Awaitable[None]]
"""Takes the progress (0 to 1) and what is being done."""


@dataclasses.dataclass(frozen=True)
class Ticket:
    """Names one large thing in the card store's data plane."""

    kind: str
    digest: str
    size_bytes: int
    name: str


@dataclasses.dataclass(frozen=True)
class Trigger:
    """A question that revealed the gap, with the answer that the teacher gave."""

    query: str
    expected_answer: str


@dataclasses.dataclass(frozen=True)
class CodeBase:
    """What samples were made from."""

    commit_id: str
    probe: str
    """Text before a cursor, as the samples have it."""
    told: str = ""
    """How many of what, for people."""


@dataclasses.dataclass(frozen=True)
class Repository:
    """A code base that the distiller may read."""

    name: str
    commit_id: str
    """Of HEAD; empty where it can't be read."""
    error: str = ""
    """Why."""


@dataclasses.dataclass(frozen=True)
class Distilled:
    """What a teacher knew about a gap."""

    dataset: Ticket
    skill_name: str
    domain: str
    description: str
    teacher: str
    facts: int
    questions: int
    held_out: int
    triggers: tuple[Trigger, ...]
    unanswered: tuple[str, ...]
    rejected: dict[str, int] = dataclasses.field(default_factory=dict)
    """Pairs that were not fit to train on, by reason."""
    code_base: CodeBase | None = None
    """Where a repository was read: the dataset has samples then, and there are no triggers."""


@dataclasses.dataclass(frozen=True)
class TrainingOrder:
    """What the trainer is to make."""

    run_id: str
    """Idempotency key: the task's id, with a suffix for every try but the first."""
    dataset: Ticket
    skill_name: str
    version: str
    domain: str
    description: str
    teacher: str
    seed: int
    rank_factor: int = 1
    """Times the recipe's rank."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """A draft card, still on the trainer's disk."""

    draft: Ticket
    steps: int
    final_loss: float
    trained_right: float
    seconds: float
    trainer: str = ""
    """The address of the trainer on whose disk it lies."""


@dataclasses.dataclass(frozen=True)
class GateRow:
    """One requirement of the gate and how the draft met it."""

    name: str
    right: int
    asked: int
    required: float
    passed: bool

    @property
    def share(self) -> float:
        """Of right answers; 1 where nothing was asked."""
        return self.right / self.asked if self.asked else 1.0

    def __str__(self) -> str:
        """For people: `held_out 3/8 (needs 50 %)`."""
        return f"{self.name} {self.right}/{self.asked} (needs {self.required:.0%})"


@dataclasses.dataclass(frozen=True)
class Proof:
    """What the gate found; the card is sealed and uploaded where it passed."""

    passed: bool
    rows: tuple[GateRow, ...]
    card: Ticket | None
    seconds: float
    signature_json: str = ""
    """The trainer's DSSE envelope over the card, if it passed."""
    curable: bool = True
    """Whether another training may pass, where this one did not."""
    wrong: tuple[str, ...] = ()
    """Questions of the dataset that the draft answered wrong."""


@dataclasses.dataclass(frozen=True)
class Published:
    """A card in the store with what it was trained on."""

    card: str
    """`name@digest`."""
    dataset_digest: str
    domain: str = ""


@dataclasses.dataclass(frozen=True)
class Followed:
    """The card whose next version learns corrections."""

    skill_name: str
    domain: str
    dataset_digest: str
    """What the version was trained on that serves now."""


@dataclasses.dataclass(frozen=True)
class NextVersion:
    """What a card to be is called, and what it follows."""

    version: str
    before: Published | None
    """The version that serves now, if there is one and its dataset is known."""
    serving: str = ""
    """That version as `name@digest`, its dataset known or not; empty for none."""


@dataclasses.dataclass(frozen=True)
class Rechecked:
    """The gate's table for a published card: now, and as it was recorded."""

    rows: tuple[GateRow, ...]
    recorded: tuple[GateRow, ...]


@dataclasses.dataclass(frozen=True)
class Reply:
    """What the inference node answered, and which card did (`name@digest`; empty for none)."""

    answer: str
    card: str


def enlarging_id(task_id: str) -> str:
    """Under which id a task's dataset is enlarged."""
    return f"{task_id}-more"


class Distiller(Protocol):
    """Asks the teachers."""

    async def locate(self, query: str) -> str:
        """The topic key of a question; empty where the sources say nothing about it."""

    async def distil(
        self,
        task_id: str,
        queries: Sequence[str],
        topic: str,
        document: str,
        on_progress: OnProgress,
        teacher: str = "",
        retry_of: Sequence[str] = (),
        repository: str = "",
        corrections: Sequence[feedback.Correction] = (),
        follows: Followed | None = None,
    ) -> Distilled:
        """Question/answer pairs about a gap, or samples of a code base; idempotent by task_id.

        Args:
            task_id: of the task.
            queries: the questions that revealed it.
            topic: or what to learn in words.
            document: or a document to learn.
            on_progress: told now and then.
            teacher: of those configured, asked first; empty for their own order.
            retry_of: tasks that this one tries again, the latest first; what they were answered
                is not asked again.
            repository: or the code base to learn, alone.
            corrections: answers to some of the queries, as people gave them: no teacher is asked.
            follows: the card whose dataset they correct; None for a card of their own.
        """

    async def repositories(self) -> Sequence[Repository]:
        """The code bases that may be learned, and where each stands."""

    async def enlarge(
        self, task_id: str, of_task: str, weak: Sequence[str], on_progress: OnProgress
    ) -> Distilled:
        """More wordings of what a task was distilled to; idempotent by task_id.

        Args:
            task_id: of this work.
            of_task: what was distilled.
            weak: questions of it that were answered wrong; none: all need more wordings.
            on_progress: told now and then.
        """

    async def cancel(self, task_ids: Sequence[str]) -> None:
        """Ends what is under way under those ids; what was answered stays."""

    async def spending(self, task_id: str) -> costs.Spent:
        """What the teachers of a task cost so far."""


class Trainer(Protocol):
    """Trains and proves cards."""

    async def train(self, order: TrainingOrder, on_progress: OnProgress) -> Trained:
        """Trains a draft; idempotent by the order's run_id."""

    async def prove(
        self,
        run_id: str,
        dataset: Ticket,
        draft: Ticket,
        triggers: Sequence[Trigger],
        on_progress: OnProgress,
        before: Published | None = None,
    ) -> Proof:
        """Measures a draft, beside the version that it is to follow; idempotent by run_id."""

    async def recheck(
        self,
        recheck_id: str,
        card: Published,
        triggers: Sequence[Trigger],
        on_progress: OnProgress,
    ) -> Rechecked:
        """Measures a published card again; the same id joins one that is under way."""


class Trainers(Protocol):
    """All trainers; see `trainers.TrainerPool`."""

    def borrowed(self, before: str) -> contextlib.AbstractAsyncContextManager[tuple[str, Trainer]]:
        """A trainer and its address: the one that had the work before, or a free one."""

    async def lost(self, address: str) -> bool:
        """Whether the work of a trainer has to be done by another one."""


class Store(Protocol):
    """Keeps cards and datasets."""

    async def versions(self, name: str) -> list[str]:
        """The semantic versions of the cards of that name."""

    async def latest(self, name: str) -> Published | None:
        """The version of a card that serves; None without one, or without a known dataset."""

    async def owners(self, card: str) -> Sequence[str] | None:
        """The tenants who alone see a card (`name@digest`), none: everybody; None: no such card."""

    async def serving(self, name: str) -> str:
        """That version as `name@digest`; empty for none."""

    async def versions_before(self, card: str) -> Sequence[str]:
        """The versions that served before a card (`name@digest`), the latest first.

        Those that were withdrawn or deleted are left out.
        """

    async def commit(self, idempotency_key: str, ticket: Ticket, signature_json: str = "") -> str:
        """Publishes an uploaded card, whose signature must hold, or keeps a dataset.

        Returns:
            `name@digest` of a card; empty for a dataset.
        """

    async def withdraw(self, idempotency_key: str, card: str, before: str) -> str:
        """Lets a version before a card (both `name@digest`) serve again.

        Nothing changes where the card does not serve any more.

        Returns:
            What serves now, as `name@digest`.
        """


class Inference(Protocol):
    """Answers questions."""

    async def ask(self, query: str) -> Reply:
        """The answer a user would get now; the question starts no learning."""

    async def complete(self, prefix: str, model: str) -> Reply:
        """What the card of that name writes behind some text.

        Raises:
            errors.NotFoundError: the node does not serve it.
        """


@dataclasses.dataclass(frozen=True)
class Partners:
    """The services that a learning task passes through."""

    distiller: Distiller
    trainers: Trainers
    store: Store
    inference: Inference
