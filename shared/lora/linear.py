"""`LoRALinear`: a linear layer beside which any card may stand.

Which cards the rows of a batch use is said in one place for all layers of a model, its `Selection`,
so that choosing takes no longer for a hundred layers than for one. Formula of LoRA: Hu et al. 2021.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import torch
from torch.nn import functional as F

from shared import errors


@dataclasses.dataclass(slots=True)
class Adapter:
    """One card's share in one layer."""

    lora_a: torch.Tensor
    """(in_features, rank)."""
    lora_b: torch.Tensor
    """(rank, out_features)."""
    scale: float

    @property
    def rank(self) -> int:
        """Columns of A."""
        return self.lora_a.shape[1]


class Rows(Protocol):
    """What the rows of a batch add to the outputs of the layers."""

    def add(self, out: torch.Tensor, x: torch.Tensor, layer: int) -> torch.Tensor:
        """The output of a layer with its cards' share.

        Args:
            out: what the bare layer makes of x, (..., out_features); may be written over.
            x: (..., in_features).
            layer: the layer's number in its model.
        """
        ...


class Selection:
    """What the cards of a model add from now on; None while the bare model answers."""

    __slots__ = ("rows",)

    def __init__(self) -> None:
        """Begins with the bare model."""
        self.rows: Rows | None = None


class LoRALinear(torch.nn.Module):
    """`base(x) + (x @ A @ B) * scale`, with A and B of the selected card.

    The wrapped layer is held, never copied, and frozen. While no card is selected the output is
    that of the wrapped layer, bit for bit.
    """

    def __init__(self, base: torch.nn.Linear, selection: Selection, layer: int) -> None:
        """Wraps a linear layer.

        Args:
            base: the layer.
            selection: shared by all layers of the model.
            layer: the layer's number, by which the selected cards know it.
        """
        super().__init__()
        self.base = base
        self.base.requires_grad_(False)
        # Beside torch's own books of its modules, whose look-up is a hundredth of a small model.
        self.__dict__["_bare"] = base
        self._is_plain = type(base) is torch.nn.Linear
        """Not one of those that quantise."""
        self._selection = selection
        self._layer = layer

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

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Applies the layer to x of shape (..., in_features); returns (..., out_features)."""
        base: torch.nn.Linear = self.__dict__["_bare"]
        if self._is_plain and not (base._forward_hooks or base._forward_pre_hooks):
            # The same product without another module call, which on a small model is a tenth.
            out = F.linear(x, base.weight, base.bias)
        else:
            out = base(x)
        rows = self._selection.rows
        return out if rows is None else rows.add(out, x, self._layer)


def fresh(
    in_features: int, out_features: int, rank: int, alpha: float, generator: torch.Generator
) -> Adapter:
    """A trainable adapter: A uniform as in Kaiming (He et al. 2015), B zero.

    Since B is zero a layer's output does not change until it is trained.

    Args:
        in_features: rows of A.
        out_features: columns of B.
        rank: columns of A, rows of B.
        alpha: the scale is alpha / rank.
        generator: source of A.

    Raises:
        errors.InvalidInputError: the rank does not fit the layer.
    """
    if not 1 <= rank <= min(in_features, out_features):
        raise errors.InvalidInputError(
            f"rank {rank} does not fit a layer of {in_features} to {out_features}"
        )
    bound = in_features**-0.5
    lora_a = torch.empty(in_features, rank, dtype=torch.float32)
    lora_a.uniform_(-bound, bound, generator=generator)
    return Adapter(
        torch.nn.Parameter(lora_a),
        torch.nn.Parameter(torch.zeros(rank, out_features)),
        alpha / rank,
    )
