"""The gate: a draft is published only if it answers what it should and harms nothing.

Asks the model as users do, and compares with `shared.grading`. Knows nothing about training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from services.trainer import replay as replays
from shared import grading
from shared import settings as config
from shared.flight import datasets

Ask = Callable[[Sequence[str]], list[str]]
"""Questions to the answers that the model gives with the draft active."""


@dataclasses.dataclass(frozen=True)
class Trigger:
    """A user's question with the answer that the teacher gave."""

    query: str
    expected_answer: str


@dataclasses.dataclass(frozen=True)
class Row:
    """One requirement and how it was met."""

    name: str
    right: int
    asked: int
    required: float
    """Share that must be right, 0 to 1."""

    @property
    def passed(self) -> bool:
        """Whether the share is reached; a row that asks nothing passes."""
        return self.right >= self.required * self.asked


def measure(
    ask: Ask,
    pairs: Sequence[datasets.QAPair],
    triggers: Sequence[Trigger],
    replay: replays.Replay,
    settings: config.Trainer,
) -> list[Row]:
    """Asks everything and fills the table.

    Args:
        ask: answers with the draft active.
        pairs: what the draft was trained on.
        triggers: the questions that asked for the skill.
        replay: what must stay as it was.
        settings: the shares required.
    """
    trained = [(q, pair.answer) for pair in pairs for q in (pair.question, *pair.paraphrases)]
    held_out = [(q, pair.answer) for pair in pairs for q in pair.held_out]
    wanted = [(trigger.query, trigger.expected_answer) for trigger in triggers]
    return [
        _row("triggers", ask, wanted, settings.gate_triggers),
        _row("trained", ask, trained, settings.gate_trained),
        _row("held_out", ask, held_out, settings.gate_held_out),
        _unchanged("known", ask, replay.known, settings.gate_known),
        _unchanged("unrelated", ask, replay.unrelated, settings.gate_unrelated),
    ]


def _row(name: str, ask: Ask, expected: Sequence[tuple[str, str]], required: float) -> Row:
    given = ask([question for question, _ in expected]) if expected else []
    right = sum(
        grading.is_right(answer, wanted)
        for answer, (_, wanted) in zip(given, expected, strict=True)
    )
    return Row(name, right, len(expected), required)


def _unchanged(name: str, ask: Ask, before: Sequence[replays.Answered], required: float) -> Row:
    given = ask([item.question for item in before])
    same = sum(answer == item.answer for answer, item in zip(given, before, strict=True))
    return Row(name, same, len(before), required)
