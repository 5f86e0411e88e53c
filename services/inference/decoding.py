"""Greedy decoding over the KV cache, and text out of tokens as they come.

Knows nothing about cards, queues or requests. Runs in the thread that owns the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import transformers

_BROKEN = "\ufffd"
"""What a tokenizer writes for bytes that are no whole character yet."""


def greedy(
    model: Any, prompt_ids: Sequence[int], max_new_tokens: int, end_ids: frozenset[int]
) -> Iterator[int]:
    """The likeliest next token, again and again, as `generate(do_sample=False)` of transformers.

    Args:
        model: a transformers causal LM.
        prompt_ids: the prompt; at least one token.
        max_new_tokens: stops after this many.
        end_ids: stops at any of these, which is not handed out.
    """
    cache = transformers.DynamicCache(config=model.config)
    ids_1_T = torch.tensor([list(prompt_ids)], dtype=torch.int64)
    for _ in range(max_new_tokens):
        token = _likeliest(model, ids_1_T, cache)
        if token in end_ids:
            return
        yield token
        ids_1_T = torch.tensor([[token]], dtype=torch.int64)


# Around one step, not around the generator: between two tokens the thread may take in a card, whose
# tensors have no part in this mode.
@torch.inference_mode()
def _likeliest(model: Any, ids_1_T: torch.Tensor, cache: Any) -> int:
    logits_1_T_V = model(
        input_ids=ids_1_T, past_key_values=cache, use_cache=True, logits_to_keep=1
    ).logits
    # A contiguous copy: a slice would keep the logits of the whole prompt alive on models that
    # ignore logits_to_keep, and argmax over it is slower.
    return int(logits_1_T_V[0, -1].clone(memory_format=torch.contiguous_format).argmax())


def end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end an answer, from the generation settings and the tokenizer."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    several = configured if isinstance(configured, list) else [configured]
    return frozenset(int(one) for one in (*several, tokenizer.eos_token_id) if one is not None)


def context_tokens(model: Any) -> int | None:
    """How many tokens prompt and answer may have together; None where the model does not say."""
    found = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(found) if found else None


class TextPieces:
    """Turns tokens into pieces of text whose sum is the text of all tokens.

    A character may spread over several tokens, and a tokenizer may treat the first token of a text
    in its own way (SentencePiece drops its space). So each step decodes a short window twice, with
    and without the new tokens, and hands out the difference once it ends in a whole character.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Takes the tokenizer that made the tokens."""
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._window_from = 0
        self._told_to = 0

    def add(self, token: int) -> str:
        """Text that this token completes; often empty in the middle of a character."""
        self._ids.append(token)
        fresh = self._fresh()
        if not fresh or fresh.endswith(_BROKEN):
            return ""
        self._window_from, self._told_to = self._told_to, len(self._ids)
        return fresh

    def rest(self) -> str:
        """What is still held back when the tokens have ended."""
        fresh = self._fresh()
        self._window_from = self._told_to = len(self._ids)
        return fresh

    @property
    def tokens(self) -> int:
        """Tokens added so far."""
        return len(self._ids)

    def _fresh(self) -> str:
        told = self._decode(self._ids[self._window_from : self._told_to])
        return self._decode(self._ids[self._window_from :])[len(told) :]

    def _decode(self, ids: list[int]) -> str:
        # Clean-up of spaces would change text that was already handed out.
        text: str = self._tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text
