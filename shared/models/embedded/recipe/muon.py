"""Muon in float32 for processors without matrix units.

`torch.optim.Muon` orthogonalises in bfloat16, which such processors only emulate: a step of this
model's matrices took 0.93 s there and 0.34 s here, more than half of a whole training step.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS = 5


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by Newton-Schulz (Jordan et al. 2024), for matrices alone."""

    def __init__(
        self,
        matrices: Iterable[torch.nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        """Takes the parameters, each of shape (rows, columns), and the rates."""
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update; `closure` is not supported."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum"] = torch.zeros_like(matrix)
                state["momentum"].lerp_(matrix.grad, 1 - group["momentum"])
                # Nesterov: the gradient weighs in once more.
                update = orthogonalised(matrix.grad.lerp(state["momentum"], group["momentum"]))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
                matrix.add_(update, alpha=-group["lr"] * scale)


def orthogonalised(matrix_M_N: torch.Tensor) -> torch.Tensor:
    """Nearly the orthogonal factor of a matrix: its singular values come near 1, same shape."""
    a, b, c = _COEFFICIENTS
    tall = matrix_M_N.shape[0] > matrix_M_N.shape[1]
    x = matrix_M_N.T if tall else matrix_M_N
    x = x / (x.norm() + 1e-7)
    for _ in range(_STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
