"""What a distillation is asked and what it yields: the words in which the modules here talk."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Awaitable, Callable

from shared import errors
from shared.cards import manifest as manifests
from shared.flight import datasets

ProgressCallback = Callable[[float, str], Awaitable[None]]
"""Takes the share that is done (0 to 1) and what is being done, for people."""


@dataclasses.dataclass(frozen=True)
class Correction:
    """A question with its right answer, as a person gave it."""

    question: str
    answer: str
    wrong: str = ""
    """The answer that was given; empty where nobody told."""


@dataclasses.dataclass(frozen=True)
class Followed:
    """The card whose next version learns corrections."""

    skill_name: str
    domain: str
    dataset_digest: str
    """Of what it was trained on."""

    def __post_init__(self) -> None:
        """Refuses a name that no card has: files are called by it."""
        if not re.fullmatch(manifests.NAME_PATTERN, self.skill_name):
            raise errors.InvalidInputError(
                f"follows.skill_name {self.skill_name[:100]!r} is no name of a card"
            )


@dataclasses.dataclass(frozen=True)
class DistilRequest:
    """What to learn: questions, a topic in words, or a document."""

    task_id: str
    """Idempotency key: the same one asked again yields the same result."""
    queries: tuple[str, ...] = ()
    topic: str = ""
    document: str = ""
    """Name of a document in the knowledge folder."""
    of_task: str = ""
    """A finished distillation that needs more wordings, see `enlarging`."""
    weak: tuple[str, ...] = ()
    """Questions of it that a card answered wrong."""
    teacher: str = ""
    """Of those configured, asked first: provider, or provider:model; empty for their order."""
    repository: str = ""
    """Name of a code base among the repositories, see `code_bases`."""
    retry_of: tuple[str, ...] = ()
    """Tasks that this one tries again, the latest first; see `journal.Journal.take_over`."""
    corrections: tuple[Correction, ...] = ()
    """Questions that people answered, see `correcting`; the latest of one question counts."""
    follows: Followed | None = None
    """The card that they correct; None for none."""


@dataclasses.dataclass(frozen=True)
class Trigger:
    """A question that a user asked, with the answer found."""

    query: str
    expected_answer: str


@dataclasses.dataclass(frozen=True)
class Distillation:
    """A skill's worth of facts, ready to train on."""

    pairs: tuple[datasets.QAPair, ...]
    skill_name: str
    """The name of the card to be, see `shared.cards.manifest.slug`."""
    domain: str
    description: str
    teacher: str
    """Whoever answered: provider and model."""
    triggers: tuple[Trigger, ...]
    unanswered: tuple[str, ...]
    """Users' questions to which no teacher had an answer that could be trained."""
    rejected: dict[str, int] = dataclasses.field(default_factory=dict)
    """How many pairs were not good enough to train on, by reason, see `quality.verdict`."""
