"""Lets the model answer many questions at once, greedily: what the gate and the replay need."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from shared.models import base as bases

ROWS = 32
"""Questions that are answered together."""
LONGEST_ANSWER_TOKENS = 192


@torch.no_grad()
def answers(
    base: bases.BaseModel, questions: Sequence[str], most_tokens: int = LONGEST_ANSWER_TOKENS
) -> list[str]:
    """The answers that the model gives now, with whatever card is active.

    Args:
        base: the model.
        questions: what to ask.
        most_tokens: longer answers are cut.
    """
    found: list[str] = []
    for at in range(0, len(questions), ROWS):
        prompts = [base.prompt_ids(question) for question in questions[at : at + ROWS]]
        ids = generated(base, prompts, most_tokens, [base.tokenizer.eos_token_id])
        texts = base.tokenizer.batch_decode(ids, skip_special_tokens=True)
        found.extend(text.strip() for text in texts)
    return found


@torch.no_grad()
def generated(
    base: bases.BaseModel,
    prompts: Sequence[Sequence[int]],
    most_tokens: int,
    end_ids: Sequence[int],
) -> list[list[int]]:
    """What the model goes on with, greedily: token ids, the ends and what is padded included.

    Args:
        base: the model.
        prompts: token ids, read together; none is empty.
        most_tokens: that are generated.
        end_ids: tokens that end a row.
    """
    tokenizer = base.tokenizer
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    width = max(map(len, prompts))
    # Padded on the left, so that every row's answer begins in the same column.
    ids_B_T = torch.tensor([[pad] * (width - len(ids)) + [*ids] for ids in prompts])
    mask_B_T = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts])
    out_B_T = base.model.generate(
        input_ids=ids_B_T.to(base.model.device),
        attention_mask=mask_B_T.to(base.model.device),
        max_new_tokens=most_tokens,
        do_sample=False,
        pad_token_id=pad,
        eos_token_id=list(end_ids),
    )
    found: list[list[int]] = out_B_T[:, width:].tolist()
    return found
