"""`LoRALinear`: a linear layer with any number of cards beside it, one of them active.

Knows nothing about cards as files, models or requests: `LoRAManager` wraps and unwraps, whoever
generates says which card is active. Formula of LoRA: Hu et al. 2021.
"""

from __future__ import annotations

import dataclasses

import torch

from shared import errors


@dataclasses.dataclass
class Adapter:
    """One card's share in one layer."""

    lora_a: torch.Tensor
    """(in_features, rank)."""
    lora_b: torch.Tensor
    """(rank, out_features)."""
    scale: float


class LoRALinear(torch.nn.Module):
    """`base(x) + (x @ A @ B) * scale`, with A and B of the active card.

    The wrapped layer is held, never copied, and stays frozen. Without an active card the output is
    that of the wrapped layer, bit for bit.
    """

    def __init__(self, base: torch.nn.Linear) -> None:
        """Wraps a linear layer without copying its weight."""
        super().__init__()
        self.base = base
        self.base.requires_grad_(False)
        self._adapters: dict[str, Adapter] = {}
        self._active: Adapter | None = None

    @property
    def in_features(self) -> int:
        """Input size of the wrapped layer."""
        return self.base.in_features

    @property
    def out_features(self) -> int:
        """Output size of the wrapped layer."""
        return self.base.out_features

    @property
    def weight(self) -> torch.Tensor:
        """Weight of the wrapped layer: some models read it directly."""
        return self.base.weight

    def add(self, key: str, adapter: Adapter) -> None:
        """Puts a card's matrices beside the layer; it is not active yet.

        Raises:
            errors.InvalidInputError: the shapes do not fit this layer.
        """
        rank = adapter.lora_a.shape[-1]
        expected = ((self.in_features, rank), (rank, self.out_features))
        found = (tuple(adapter.lora_a.shape), tuple(adapter.lora_b.shape))
        if found != expected:
            raise errors.InvalidInputError(
                f"card {key}: matrices of shape {found} do not fit a layer that needs {expected}"
            )
        self._adapters[key] = adapter

    def add_trainable(
        self, key: str, rank: int, alpha: float, generator: torch.Generator
    ) -> Adapter:
        """Adds a fresh adapter: A uniform as in Kaiming (He et al. 2015), B zero.

        Since B is zero the layer's output does not change until it is trained.

        Args:
            key: the name of the card to be.
            rank: columns of A, rows of B.
            alpha: the scale is alpha / rank.
            generator: source of A.
        """
        bound = self.in_features**-0.5
        lora_a = torch.empty(self.in_features, rank, dtype=torch.float32)
        lora_a.uniform_(-bound, bound, generator=generator)
        adapter = Adapter(
            torch.nn.Parameter(lora_a),
            torch.nn.Parameter(torch.zeros(rank, self.out_features)),
            alpha / rank,
        )
        self.add(key, adapter)
        return adapter

    def activate(self, key: str | None) -> None:
        """Makes one card answer from now on; a card without a share here leaves the layer bare."""
        self._active = None if key is None else self._adapters.get(key)

    def remove(self, key: str) -> None:
        """Drops a card; silent if it is not there."""
        adapter = self._adapters.pop(key, None)
        if adapter is not None and adapter is self._active:
            self._active = None

    @property
    def keys(self) -> list[str]:
        """Cards that have a share in this layer."""
        return list(self._adapters)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Applies the layer to x of shape (..., in_features); returns (..., out_features)."""
        out: torch.Tensor = self.base(x)
        adapter = self._active
        if adapter is None:
            return out
        lora_a, lora_b = adapter.lora_a.to(x.dtype), adapter.lora_b.to(x.dtype)
        flat = x.reshape(-1, self.in_features)
        side = torch.addmm(
            out.reshape(-1, self.out_features), flat @ lora_a, lora_b, alpha=adapter.scale
        )
        return side.reshape(out.shape)
