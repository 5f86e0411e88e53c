"""What a node has captured and learned, in the terms of the hierarchy."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from services.inference import captures
from shared import errors
from shared.hierarchy import levels, signatures, stack, trajectories

_HALF_MAX = torch.finfo(torch.float16).max


def trajectory(
    taken: captures.Taken, background: Mapping[str, torch.Tensor] | None = None
) -> trajectories.Trajectory:
    """The trajectory of a captured generation.

    Args:
        taken: what was captured.
        background: as in `signatures.sketch`.

    Raises:
        errors.InvalidInputError: an activation is not finite.
    """
    return trajectories.Trajectory(
        prompt=torch.tensor(taken.prompt, dtype=torch.int32),
        answer=torch.tensor(taken.answer, dtype=torch.int32),
        top_ids=taken.top_ids,
        top_logits=_half(taken.top_logits),
        log_sums=taken.log_sums,
        activations={path: _half(one) for path, one in taken.inputs.items()},
        signature=signatures.sketch(taken.inputs, background=background).half(),
    )


def activity(
    taken: captures.Taken, answered_with: stack.Stack
) -> dict[levels.Level, dict[str, torch.Tensor]]:
    """The activity of rank channels by layer and module, (rank,), float32.

    Args:
        taken: what was captured: agent layer's channels, and behind them the context layer's.
        answered_with: the layers at the time.

    Raises:
        errors.InternalError: it is of other layers.
    """
    found: dict[levels.Level, dict[str, torch.Tensor]] = {}
    for path, channels in taken.activity.items():
        start = 0
        for level in levels.PRIVATE:
            factors = answered_with.layers.get(level, {}).get(path)
            if factors is not None:
                found.setdefault(level, {})[path] = channels[start : start + factors.rank]
                start += factors.rank
        if start != len(channels):
            raise errors.InternalError(
                f"module {path}: {len(channels)} channels were captured, the layers have {start}"
            )
    return found


def _half(values: torch.Tensor) -> torch.Tensor:
    return values.clamp(-_HALF_MAX, _HALF_MAX).half()
