"""Between the buffers of a card and torch tensors: views one way, bytes the other."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import pyarrow as pa
import torch

from shared.cards import card as cards
from shared.lora import linear

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def copy(target: torch.Tensor, buffers: Iterable[tuple[pa.Buffer, str]]) -> None:
    """Copies buffers into consecutive memory.

    Args:
        target: (elements,), of any dtype.
        buffers: each with its dtype.
    """
    start = 0
    for buffer, dtype in buffers:
        found = _mapped(buffer, dtype)
        target[start : start + len(found)].copy_(found)
        start += len(found)


def _mapped(buffer: pa.Buffer, dtype: str) -> torch.Tensor:
    """A view of a buffer that must not be written to, (elements,)."""
    with warnings.catch_warnings():
        # torch has no read-only tensors and says so; nobody writes to this one.
        warnings.simplefilter("ignore", UserWarning)
        return torch.frombuffer(memoryview(buffer), dtype=DTYPES[dtype])


def adapter_of(weights: cards.ModuleWeights, dtype: torch.dtype) -> linear.Adapter:
    """A copy of one module's matrices in the model's dtype, ready to be used.

    Copied because the mapped file may be replaced or removed while the model serves.
    """
    return linear.Adapter(
        lora_a=_mapped(weights.lora_a, weights.dtype)
        .reshape(weights.in_features, weights.rank)
        .to(dtype, copy=True),
        lora_b=_mapped(weights.lora_b, weights.dtype)
        .reshape(weights.rank, weights.out_features)
        .to(dtype, copy=True),
        scale=weights.scale,
    )


def weights_of(adapter: linear.Adapter, alpha: float, dtype: str) -> cards.ModuleWeights:
    """The buffers of a trained adapter, rounded to the dtype that the card keeps."""
    lora_a, lora_b = adapter.lora_a.detach(), adapter.lora_b.detach()
    return cards.ModuleWeights(
        rank=lora_a.shape[1],
        in_features=lora_a.shape[0],
        out_features=lora_b.shape[1],
        alpha=alpha,
        dtype=dtype,
        lora_a=_buffer(lora_a, dtype),
        lora_b=_buffer(lora_b, dtype),
    )


def _buffer(tensor: torch.Tensor, dtype: str) -> pa.Buffer:
    # One-dimensional first: a matrix of one column counts as contiguous whatever its stride.
    rounded = tensor.to(DTYPES[dtype]).contiguous().reshape(-1).view(torch.uint8)
    return pa.py_buffer(rounded.numpy().tobytes())
