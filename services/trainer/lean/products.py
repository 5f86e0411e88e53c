"""Products of activations with frozen weights, forwards and backwards.

Some processors multiply bfloat16 ten times (forwards) to a hundred times (backwards) slower than
float32. There a piece of the weights at a time is widened to float32 in memory that is used again,
multiplied, and the result is rounded once. Nothing else of the weights is ever copied.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from shared import errors

_PIECE_FLOATS = 4 * 1024 * 1024
"""16 MiB: most layers in one piece, and a share of what a processor caches."""


class Products:
    """How one model's frozen weights are multiplied."""

    def __init__(self, widen: bool) -> None:
        """Takes whether to widen.

        Args:
            widen: multiply in float32 whatever the dtype of the weights.
        """
        self.widen = widen
        self._rooms: dict[str, torch.Tensor] = {}
        """Memory that is used again: what is widened comes and goes with every layer, and between
        activations that stay it would tear holes."""

    @classmethod
    def best_for(cls, weight: torch.Tensor) -> Products:
        """The faster way on the device of these weights."""
        if weight.device.type != "cpu" or weight.dtype not in (torch.bfloat16, torch.float16):
            return cls(widen=False)
        half = weight.dtype == torch.float16
        fast: bool = (
            torch.ops.mkldnn._is_mkldnn_fp16_supported()
            if half
            else torch.ops.mkldnn._is_mkldnn_bf16_supported()
        )
        return cls(widen=not fast)

    def cast(self, x: torch.Tensor, room: str) -> torch.Tensor:
        """In the dtype that is multiplied in; good until the room is used again."""
        if not self.widen or x.dtype == torch.float32:
            return x
        return self._room(room, x.shape).copy_(x)

    def forwards(self, x_N_I: torch.Tensor, weight_O_I: torch.Tensor) -> torch.Tensor:
        """`x @ weight.T`, (N, O), in the dtype that is multiplied in; good until the next call."""
        if not self.widen:
            return F.linear(x_N_I, weight_O_I)
        out_N_O = self._room("out", (len(x_N_I), len(weight_O_I)))
        for start, piece_P_I in self.pieces(weight_O_I):
            torch.mm(x_N_I, piece_P_I.T, out=out_N_O[:, start : start + len(piece_P_I)])
        return out_N_O

    def backwards(self, grad_N_O: torch.Tensor, weight_O_I: torch.Tensor) -> torch.Tensor:
        """`grad @ weight`, (N, I), in the dtype that is multiplied in; good until the next call."""
        if not self.widen:
            return grad_N_O @ weight_O_I
        out_N_I = self._room("out", (len(grad_N_O), weight_O_I.shape[1])).zero_()
        for start, piece_P_I in self.pieces(weight_O_I):
            out_N_I.addmm_(grad_N_O[:, start : start + len(piece_P_I)], piece_P_I)
        return out_N_I

    def pieces(self, weight_O_I: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """Rows of the weights with the number of the first; each is good until the next comes."""
        count, width = weight_O_I.shape
        rows = -(-count // -(-count * width // _PIECE_FLOATS))
        for start in range(0, count, rows):
            piece = weight_O_I[start : start + rows]
            yield start, self.cast(piece, "piece")

    def _room(self, name: str, shape: Sequence[int]) -> torch.Tensor:
        size = math.prod(shape)
        if name not in self._rooms or len(self._rooms[name]) < size:
            self._rooms[name] = torch.empty(size)
        return self._rooms[name][:size].view(shape)


def weight_of(layer: torch.nn.Linear) -> torch.Tensor:
    """The weights of a frozen layer as they are multiplied, (out, in): a 4-bit one's are unpacked.

    Raises:
        errors.ConfigError: a kind of quantised layer that can't be trained through.
    """
    if type(layer.weight) is torch.nn.Parameter:
        return layer.weight
    state = getattr(layer.weight, "quant_state", None)
    if state is None:
        raise errors.ConfigError(
            f"a layer of type {type(layer).__name__} with weights of type "
            f"{type(layer.weight).__name__} can't be trained through: set trainer.quantization to "
            "none or nf4"
        )
    functional: Any = importlib.import_module("bitsandbytes.functional")
    weight: torch.Tensor = functional.dequantize_4bit(layer.weight.data, state)
    return weight
