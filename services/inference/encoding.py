"""Vectors of texts from the base model, with a card or without.

Between requests: every text is a job of its own in the model's thread. Knows nothing of how cards
come into memory; the engine holds the one that is named.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from services.inference import prompts
from services.inference import worker as workers
from shared import errors
from shared.lora import manager as managers
from shared.models import base as bases

Vectors = npt.NDArray[np.float32]


class Encoder:
    """Encodes with one model."""

    def __init__(
        self,
        base: bases.BaseModel,
        manager: managers.LoRAManager,
        worker: workers.Worker,
        context: prompts.Prompts,
    ) -> None:
        """Takes the model, its cards, its thread, and what knows how long a text may be."""
        self._base, self._manager = base, manager
        self._worker, self._context = worker, context

    async def encode(self, texts: Sequence[str], card: str | None) -> Vectors:
        """Means of the last hidden states, float32 of shape (texts, hidden).

        Args:
            texts: each with at least one token.
            card: key of a card in memory that stays there meanwhile; None for the bare model.

        Raises:
            errors.InvalidInputError: a text has no token, or more than the model's context.
            errors.OverloadedError: the queue is full.
        """
        # A job a text, so that nobody's tokens wait for a whole list; and padding would change the
        # last bits.
        jobs = (functools.partial(self._encode, row, text, card) for row, text in enumerate(texts))
        rows = [await asyncio.wrap_future(self._worker.submit(job)) for job in jobs]
        hidden = int(self._base.model.config.get_text_config().hidden_size)
        return np.stack(rows) if rows else np.zeros((0, hidden), dtype=np.float32)

    @torch.inference_mode()
    def _encode(self, row: int, text: str, card: str | None) -> Vectors:
        """One text; only in the model's thread."""
        self._manager.activate(card)
        ids: list[Any] = list(self._base.tokenizer(text)["input_ids"])
        if not ids:
            raise errors.InvalidInputError(f"texts[{row}] has no token; leave it out")
        self._context.room(len(ids) - 1)
        model = self._base.model
        states_1_T_H: torch.Tensor = model.base_model(
            input_ids=torch.tensor([ids], device=model.device), use_cache=False
        ).last_hidden_state
        vector_H: Vectors = states_1_T_H[0].float().mean(0).cpu().numpy()
        return vector_H
