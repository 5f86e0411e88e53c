"""Ways to compute a card's share that are not used, beside the one that is.

    python -m benchmarks.engine.alternatives

Two were measured before the decision (docs/adr/0010): layers that share an input (q, k, v) taking
their A matrices in one product, and weights that oneDNN has packed beforehand. Both depend on the
processor, so that the question can be asked again on another one.
"""

from __future__ import annotations

from collections.abc import Callable

import rich.console
import rich.table
import torch
from torch.nn import functional as F

from benchmarks.engine import timing

_RANK, _SCALE = 8, 2.0
_SHARING = 3
"""q, k, v."""
_CALLS, _ROUNDS = 50, 40


def one_product(size: int, rows: int) -> dict[str, float]:
    """Milliseconds of q, k and v with a card, by how their A matrices meet the input.

    Args:
        size: in and out features.
        rows: of the input, one token each.
    """
    x = torch.randn(rows, 1, size)
    weights = [torch.randn(size, size) for _ in range(_SHARING)]
    a_G_I_R = torch.randn(_SHARING, size, _RANK)
    b_G_R_O = torch.randn(_SHARING, _RANK, size)
    # Each row of the input meets all A matrices at once where their columns stand side by side.
    beside = a_G_I_R.transpose(0, 1).reshape(size, _SHARING * _RANK).contiguous()

    def with_lows(lows: Callable[[], tuple[torch.Tensor, ...]]) -> Callable[[], None]:
        def step() -> None:
            for weight, low, b in zip(weights, lows(), b_G_R_O, strict=True):
                out = F.linear(x, weight)
                out.view(-1, size).addmm_(low, b, alpha=_SCALE)

        return step

    flat = x.view(-1, size)
    ways: dict[str, Callable[[], object]] = {
        "a product a layer (used)": with_lows(lambda: tuple(flat.mm(a) for a in a_G_I_R)),
        "one batched product": with_lows(
            lambda: torch.bmm(flat.expand(_SHARING, -1, -1), a_G_I_R).unbind(0)
        ),
        "columns side by side": with_lows(lambda: flat.mm(beside).split(_RANK, 1)),
    }
    return _medians(ways)


def prepacked(dtype: torch.dtype, size: tuple[int, int], rows: int) -> dict[str, float]:
    """Milliseconds of one bare layer, plain and with weights that oneDNN packed before.

    Args:
        dtype: of weights and input.
        size: in and out features.
        rows: of the input.

    Raises:
        RuntimeError: oneDNN has no such path for this processor.
    """
    x = torch.randn(rows, size[0], dtype=dtype)
    weight = torch.randn(size[1], size[0], dtype=dtype)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return _medians(
        {
            "plain (used)": lambda: F.linear(x, weight),
            "packed": lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], ""),
        }
    )


def _medians(ways: dict[str, Callable[[], object]]) -> dict[str, float]:
    def repeated(way: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(_CALLS):
                way()

        return run

    found = timing.medians(_ROUNDS, *[repeated(way) for way in ways.values()])
    return {name: ms / _CALLS for name, ms in zip(ways, found, strict=True)}


def main() -> None:
    """Prints one line a shape."""
    torch.set_num_threads(1)
    table = rich.table.Table("what", "shape", "ms, by way")
    with torch.inference_mode():
        for size in (256, 896):
            for rows in (1, 8):
                table.add_row(
                    "q, k, v with a card", f"{size}, {rows} rows", _told(one_product(size, rows))
                )
        for dtype in (torch.float32, torch.bfloat16):
            for shape in ((256, 256), (896, 896), (896, 4864)):
                for rows in (1, 8):
                    what = f"{shape[0]} to {shape[1]}, {rows} rows, {dtype}"
                    try:
                        told = _told(prepacked(dtype, shape, rows))
                    except RuntimeError as error:
                        told = str(error)
                    table.add_row("bare layer", what, told)
    rich.console.Console().print(table)


def _told(found: dict[str, float]) -> str:
    return "\n".join(f"{ms:.4f} {name}" for name, ms in found.items())


if __name__ == "__main__":
    main()
