"""Named tensors and plain values <-> the bytes of one Arrow file; equal content, equal bytes.

Tensors lie by layer and name in order; plain values are canonical JSON in one more tensor of
uint8. What is read lies in memory of torch's own, aligned as torch aligns it: the last bits of a
product may depend on that, and what a restart reads must compute as what it was written from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from shared import errors
from shared.flight import snapshots

Named = dict[str, torch.Tensor]
"""Tensors of one layer."""
Tensors = Mapping[str, Mapping[str, torch.Tensor]]
"""By layer and by name."""
_META, _VALUES = "meta", "values"
_DTYPES = {name: getattr(torch, name) for name in snapshots.ITEM_BYTES}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def pack(tensors: Tensors, values: Mapping[str, Any]) -> bytes:
    """The Arrow file of tensors and plain values.

    Args:
        tensors: contiguous or not, on the CPU, of the dtypes of `snapshots.ITEM_BYTES`.
        values: what JSON can hold; its floats come back to the last bit.

    Raises:
        errors.InvalidInputError: another dtype, or a value that is not finite or not plain.
    """
    try:
        text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (ValueError, TypeError) as error:
        raise errors.InvalidInputError(f"values of the hierarchy: {error}") from error
    written = np.frombuffer(text.encode(), np.uint8)
    rows = [snapshots.Tensor(_META, _VALUES, "uint8", written.shape, pa.py_buffer(written))]
    for layer in sorted(tensors):
        for name in sorted(tensors[layer]):
            rows.append(_row(layer, name, tensors[layer][name]))
    return snapshots.to_bytes(rows)


def unpack(
    data: bytes | pa.Buffer, kind: str, most_bytes: int | None = None
) -> tuple[dict[str, Named], dict[str, Any]]:
    """The tensors and values of a file that `pack` wrote, or a stranger.

    Args:
        data: the whole file.
        kind: what to call it in errors.
        most_bytes: a longer one is not looked into.

    Raises:
        errors.CapacityError: longer than allowed.
        errors.InvalidInputError: not such a file; says what is wrong.
    """
    size = data.size if isinstance(data, pa.Buffer) else len(data)
    if most_bytes is not None and size > most_bytes:
        raise errors.CapacityError(
            f"{kind}: has {size} bytes, for these layers at most {most_bytes} are read"
        )
    tensors: dict[str, Named] = {}
    values = None
    for row in snapshots.from_bytes(data):
        if (row.layer, row.name) == (_META, _VALUES):
            values = _values(row, kind)
        else:
            tensors.setdefault(row.layer, {})[row.name] = _tensor(row)
    if values is None:
        raise errors.InvalidInputError(f"{kind}: its values are missing ({_META}, {_VALUES})")
    return tensors, values


def _row(layer: str, name: str, tensor: torch.Tensor) -> snapshots.Tensor:
    dtype = _NAMES.get(tensor.dtype)
    if dtype is None:
        raise errors.InvalidInputError(
            f"layer {layer!r}, {name!r}: dtype {tensor.dtype} is not one of {list(_DTYPES)}"
        )
    plain = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return snapshots.Tensor(layer, name, dtype, tuple(tensor.shape), pa.py_buffer(plain))


def _tensor(row: snapshots.Tensor) -> torch.Tensor:
    tensor = torch.empty(row.shape, dtype=_DTYPES[row.dtype])
    tensor.reshape(-1).view(torch.uint8).numpy()[:] = np.frombuffer(row.data, np.uint8)
    return tensor


def _values(row: snapshots.Tensor, kind: str) -> dict[str, Any]:
    try:
        values = json.loads(row.data.to_pybytes(), parse_constant=_not_finite)
    except (ValueError, RecursionError) as error:
        raise errors.InvalidInputError(f"{kind}: its values are no JSON: {error}") from error
    if row.dtype != "uint8" or not isinstance(values, dict):
        raise errors.InvalidInputError(f"{kind}: its values must be one JSON object in uint8")
    return values


def _not_finite(text: str) -> float:
    raise ValueError(f"{text} is not a finite number")
