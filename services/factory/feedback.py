"""What users say of answers, and the corrections among it, which tasks learn.

Pure values; knows nothing of tasks.
"""

from __future__ import annotations

import dataclasses
import re

from services.factory import dissonance
from shared import errors, grading, questions
from shared.cards import manifest as manifests

_LONGEST_KEY = 200
_LONGEST_ANSWER = 20_000
_CARD = re.compile(rf"{manifests.NAME_PATTERN}@[0-9a-f]{{64}}")


@dataclasses.dataclass(frozen=True)
class Correction:
    """A question with its right answer, as a person gave it."""

    question: str
    answer: str
    wrong: str = ""
    """That was given; empty where nobody told."""
    card: str = ""
    """That gave it, `name@digest`; empty: the bare base model."""
    behind: str = ""
    """The task that was learning this question when the correction came, and could not take it in:
    what it publishes is corrected."""

    @property
    def skill(self) -> str:
        """The name of the card."""
        return self.card.partition("@")[0]


@dataclasses.dataclass(frozen=True)
class Feedback:
    """What a user says of one answer."""

    idempotency_key: str
    """Of this caller; the same again is the same feedback."""
    question: str
    answer: str = ""
    card: str = ""
    """That gave the answer, `name@digest`; empty: the bare base model."""
    is_right: bool = False
    correction: str = ""
    """The right answer; empty where the user does not know it either."""
    caller: str = ""
    """The name of the token, kept on record."""
    tenant: str = ""
    """Whose budget pays."""

    def __post_init__(self) -> None:
        """Refuses what can't be counted or learned."""
        if not 0 < len(self.idempotency_key) <= _LONGEST_KEY:
            raise errors.InvalidInputError(
                f"idempotency_key has {len(self.idempotency_key)} characters, expected 1 to "
                f"{_LONGEST_KEY}: it is what counts feedback once"
            )
        dissonance.check_text("question", self.question)
        if len(self.answer) > _LONGEST_ANSWER:
            raise errors.InvalidInputError(
                f"answer has {len(self.answer)} characters; at most {_LONGEST_ANSWER} are taken"
            )
        if self.card and not _CARD.fullmatch(self.card):
            raise errors.InvalidInputError(
                f"card {self.card[:100]!r} is no name@digest, as answers name their card"
            )
        if self.correction:
            self._check_correction()

    def _check_correction(self) -> None:
        if self.is_right:
            raise errors.InvalidInputError(
                "correction: a right answer has none; say that the answer is wrong, or leave it out"
            )
        for field, text in (("question", self.question), ("correction", self.correction)):
            if len(text) > questions.LONGEST_TRAINED:
                raise errors.InvalidInputError(
                    f"{field} has {len(text)} characters; of what is to be learned at most "
                    f"{questions.LONGEST_TRAINED} are taken"
                )
            if not grading.normalise(text):
                raise errors.InvalidInputError(f"{field} {text!r} has no words")
        if grading.normalise(self.correction) == grading.normalise(self.question):
            raise errors.InvalidInputError("correction is the question itself")
        if grading.is_right(self.answer, self.correction):
            raise errors.InvalidInputError(
                "the answer holds the correction already, so it counts as right; say in other "
                "words what is wrong about it"
            )

    @property
    def corrections(self) -> tuple[Correction, ...]:
        """What a task is to learn of it."""
        if not self.correction:
            return ()
        return (Correction(self.question, self.correction, self.answer, self.card),)


@dataclasses.dataclass(frozen=True)
class Counts:
    """How often answers were called right and wrong."""

    right: int
    wrong: int
