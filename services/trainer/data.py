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
    width = max(len(item.prompt_ids) + len(item.answer_ids) - 1 for item in examples)
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
