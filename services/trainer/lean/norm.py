"""Root mean square norm (Zhang and Sennrich 2019) that keeps its input and nothing else."""

from __future__ import annotations

from typing import Any

import torch


class RMSNorm(torch.nn.Module):
    """In the place of a model's own frozen norm while a training lasts."""

    def __init__(self, weight: torch.Tensor, epsilon: float) -> None:
        """Takes what the model's norm has.

        Args:
            weight: (hidden,), frozen.
            epsilon: added to the mean square.
        """
        super().__init__()
        self.weight, self.variance_epsilon = weight, epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., hidden) to (..., hidden)."""
        out: torch.Tensor = _Norm.apply(x, self.weight, self.variance_epsilon)  # type: ignore[no-untyped-call]
        return out


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        wide = x.float()
        inverse = wide.pow(2).mean(-1, keepdim=True).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        return weight * (wide * inverse).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        x, weight, inverse = ctx.saved_tensors
        if not ctx.needs_input_grad[0]:
            return None, None, None
        normed = x.float() * inverse
        out = grad.float() * weight.float()
        share = (out * normed).mean(-1, keepdim=True)
        return out.sub_(normed.mul_(share)).mul_(inverse).to(x.dtype), None, None
