"""What the rows of a batch add to a layer's output: one card for all, or each row its own.

Knows nothing about models or where cards come from; `LoRAManager` makes these of resident cards.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from shared import errors
from shared.lora import linear

Adapters = Sequence[linear.Adapter | None]
"""A card's share in every layer of a model, by the layer's number."""


class OneCard:
    """All rows use the same card."""

    def __init__(self, adapters: Adapters) -> None:
        """Takes the card's shares."""
        self._adapters = adapters

    def add(self, out: torch.Tensor, x: torch.Tensor, layer: int) -> torch.Tensor:
        """See `linear.Rows`."""
        adapter = self._adapters[layer]
        if adapter is None:
            return out
        lora_a, lora_b = adapter.lora_a, adapter.lora_b
        if lora_a.dtype != x.dtype:  # Trained in float32 beside a model in bfloat16.
            lora_a, lora_b = lora_a.to(x.dtype), lora_b.to(x.dtype)
        low = x.reshape(-1, lora_a.shape[0]).mm(lora_a)
        # In place saves a pass over the output; nobody else has seen the bare one.
        out.view(-1, lora_b.shape[1]).addmm_(low, lora_b, alpha=adapter.scale)
        return out


class Stack:
    """The cards of some rows in one layer, side by side."""

    __slots__ = ("lora_a", "scaled_b")

    def __init__(self, lora_a: torch.Tensor, scaled_b: torch.Tensor) -> None:
        """Takes the stacked matrices.

        Args:
            lora_a: (rows, in_features, rank).
            scaled_b: (rows, rank, out_features), each times its card's scale: a pass fewer.
        """
        self.lora_a, self.scaled_b = lora_a, scaled_b


class EachItsOwn:
    """Every row of a batch uses a card of its own, or none."""

    def __init__(self, batch: int, stacks: Sequence[Stack | None]) -> None:
        """Takes the rows' cards.

        Args:
            batch: rows; x must have as many in its first dimension.
            stacks: by layer; None where no row's card adapts it.
        """
        self._batch = batch
        self._stacks = stacks

    def add(self, out: torch.Tensor, x: torch.Tensor, layer: int) -> torch.Tensor:
        """See `linear.Rows`."""
        stack = self._stacks[layer]
        if stack is None:
            return out
        if x.ndim != 3 or x.shape[0] != self._batch:
            raise errors.InternalError(
                f"layer {layer} got an input of shape {tuple(x.shape)} for a batch of "
                f"{self._batch} rows: this model mixes rows, so that cards can't be told apart"
            )
        return out.baddbmm_(torch.bmm(x, stack.lora_a), stack.scaled_b)
