"""The state of a part of the hierarchy as a few flat tensors of bytes, restored exactly.

Saved beside the layers' weights in one snapshot, whose tensors are few and have few dtypes: hence
all tensors of one sort in one row of bytes, and everything else in JSON, which keeps every float64
exactly. Knows nothing about what the parts are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from shared import errors

State = Mapping[str, torch.Tensor]
"""Named tensors."""
_RECORD = "record"


def pack(record: Mapping[str, Any], groups: Mapping[str, Sequence[torch.Tensor]]) -> State:
    """The state that `unpack` takes apart again.

    Args:
        record: what JSON can say.
        groups: name to tensors, in each group of one dtype; not named `record`.

    Returns:
        One-dimensional uint8 tensors on the CPU, one a group and one for the record.
    """
    layout = {
        name: {
            "dtype": str(tensors[0].dtype).removeprefix("torch.") if tensors else "uint8",
            "shapes": [list(tensor.shape) for tensor in tensors],
        }
        for name, tensors in groups.items()
    }
    text = json.dumps({"record": record, "groups": layout}, separators=(",", ":"))
    state = {_RECORD: torch.frombuffer(bytearray(text, "utf-8"), dtype=torch.uint8)}
    for name, tensors in groups.items():
        flat = [tensor.detach().cpu().contiguous().reshape(-1) for tensor in tensors]
        state[name] = (torch.cat(flat) if flat else torch.empty(0)).view(torch.uint8)
    return state


def unpack(state: State) -> tuple[dict[str, Any], dict[str, list[torch.Tensor]]]:
    """What was packed: the record, and each group's tensors, which share no memory with the state.

    Raises:
        errors.IntegrityError: a tensor is missing or of another size than the record says.
    """
    try:
        whole = json.loads(bytes(state[_RECORD].numpy()))
        groups = {}
        for name, layout in whole["groups"].items():
            dtype = getattr(torch, layout["dtype"])
            counts = [math.prod(shape) for shape in layout["shapes"]]
            values = state[name].clone().view(dtype).split(counts) if counts else ()
            shapes = layout["shapes"]
            groups[name] = [
                value.reshape(shape).clone() for value, shape in zip(values, shapes, strict=True)
            ]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise errors.IntegrityError(
            f"saved state with {sorted(state)[:8]} does not fit together: {error}; restore an "
            "older one"
        ) from error
    return whole["record"], groups


def nested(parts: Mapping[str, State]) -> State:
    """Several states as one, each tensor named `PART/NAME`."""
    return {
        f"{part}/{name}": value for part, state in parts.items() for name, value in state.items()
    }


def part(state: State, name: str) -> State:
    """One of those that `nested` put together; empty where it was not among them."""
    start = f"{name}/"
    return {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}
