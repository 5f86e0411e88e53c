"""Training examples as token ids: input_ids, attention_mask, labels.

Knows the tokenizer and nothing else: no model, no files, no Flight.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from shared.models import base as bases

IGNORED = -100
"""Label of tokens that carry no loss, as torch's cross-entropy has it."""


@dataclasses.dataclass(frozen=True)
class Example:
    """One question with the answer that the model is to give."""

    question: str
    answer: str
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    """With the end token."""
    given: int = 0
    """Leading tokens of the answer that carry no loss."""

    @property
    def tokens(self) -> int:
        """That the model reads: the last one is only ever predicted."""
        return len(self.prompt_ids) + len(self.answer_ids) - 1

    @property
    def asked(self) -> int:
        """Tokens that carry loss."""
        return len(self.answer_ids) - self.given


@dataclasses.dataclass(frozen=True)
class Batch:
    """Rows padded on the right."""

    input_ids: torch.Tensor
    """(rows, tokens), int64."""
    attention_mask: torch.Tensor
    """(rows, tokens), int64: 1 for real tokens."""
    labels: torch.Tensor
    """(rows, tokens), int64: the token to predict at each place, -100 where there is no loss."""
    first: torch.Tensor
    """(rows,), int64: the place that predicts the answer's first token."""

    @property
    def counts(self) -> torch.Tensor:
        """(rows, tokens), bool: where there is a label."""
        return self.labels != IGNORED

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        return Batch(*(getattr(self, field.name).to(device) for field in dataclasses.fields(self)))


def example(base: bases.BaseModel, question: str, answer: str) -> Example:
    """Tokenises one pair with the base model's chat template."""
    return Example(
        question=question,
        answer=answer,
        prompt_ids=tuple(base.prompt_ids(question)),
        answer_ids=tuple(base.answer_ids(answer)),
    )


def collate(examples: Sequence[Example], pad_id: int) -> Batch:
    """Pads examples into one batch; labels are already shifted to the predicting position."""
    width = max(item.tokens for item in examples)
    input_ids_B_T = torch.full((len(examples), width), pad_id)
    mask_B_T = torch.zeros((len(examples), width), dtype=torch.long)
    labels_B_T = torch.full((len(examples), width), IGNORED)
    for row, item in enumerate(examples):
        # The last token is only ever predicted, never read.
        ids = (*item.prompt_ids, *item.answer_ids)[:-1]
        first = len(item.prompt_ids) - 1
        input_ids_B_T[row, : len(ids)] = torch.tensor(ids)
        mask_B_T[row, : len(ids)] = 1
        asked = torch.tensor(item.answer_ids[item.given :])
        labels_B_T[row, first + item.given : first + len(item.answer_ids)] = asked
    first_B = torch.tensor([len(item.prompt_ids) - 1 for item in examples])
    return Batch(input_ids_B_T, mask_B_T, labels_B_T, first_B)


def grouped(examples: Sequence[Example], overhead_tokens: int) -> list[list[Example]]:
    """Rows of about one length together, so that little is padded.

    Their gradients are added up, so that a step stays what it is however it is cut.

    Args:
        examples: of one step; at least one.
        overhead_tokens: so many tokens take as long as one pass more. What is padded is weighed
            against that, and the cheapest cut of the rows in the order of their length is taken.
    """
    rows = sorted(examples, key=lambda item: item.tokens)
    # The cheapest way to cut the first `end` rows: its cost, and where its last group starts.
    best: list[tuple[int, int]] = [(0, 0)]
    for end in range(1, len(rows) + 1):
        width = rows[end - 1].tokens
        best.append(
            min((best[at][0] + (end - at) * width + overhead_tokens, at) for at in range(end))
        )
    groups, end = [], len(rows)
    while end:
        start = best[end][1]
        groups.append(rows[start:end])
        end = start
    return groups[::-1]
