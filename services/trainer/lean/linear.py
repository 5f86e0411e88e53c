"""A frozen linear layer with a trainable adapter, as one step of the backward pass.

Kept for it are the input and the input times A, nothing else; where the layer comes behind a gate
(`silu(gate) * up`) gate and up are kept, and the input is computed anew. A layer without an adapter
keeps nothing of its own. Formula of LoRA: Hu et al. 2021.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from services.trainer.lean import products
from shared.lora import linear


class Switch:
    """Whether the adapters of a model count; the bare base answers while they don't."""

    def __init__(self) -> None:
        """Begins with them."""
        self.on = True


class Linear(torch.nn.Module):
    """In the place of a `torch.nn.Linear` while a training lasts."""

    def __init__(
        self,
        base: torch.nn.Linear,
        adapter: linear.Adapter | None,
        how: products.Products,
        switch: Switch,
    ) -> None:
        """Wraps a frozen layer.

        Args:
            base: the layer.
            adapter: float32, trained; None where the layer has none.
            how: multiplies its weights.
            switch: of all layers of the model.
        """
        super().__init__()
        self.base = base
        self.in_features, self.out_features = base.in_features, base.out_features
        self.how = how
        self._adapter, self._switch = adapter, switch

    @property
    def weight(self) -> torch.Tensor:
        """Of the wrapped layer: some models look at it."""
        return self.base.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in_features) to (..., out_features)."""
        out: torch.Tensor = _Plain.apply(x, *self._matrices(), self)  # type: ignore[no-untyped-call]
        return out

    def gated(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """The layer on `silu(gate) * up`."""
        out: torch.Tensor = _Gated.apply(gate, up, *self._matrices(), self)  # type: ignore[no-untyped-call]
        return out

    def _matrices(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        if self._adapter is None or not self._switch.on:
            return None, None
        return self._adapter.lora_a, self._adapter.lora_b

    def product(
        self, x: torch.Tensor, lora_a: torch.Tensor | None, lora_b: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The output, and x @ A for the backward pass: (N, rank)."""
        wide = self.how.cast(x.reshape(-1, self.in_features), "in")
        out = self.how.forwards(wide, products.weight_of(self.base))
        if self.base.bias is not None:
            out += self.base.bias
        low = None
        if lora_a is not None and lora_b is not None and self._adapter is not None:
            # Thin products are two to four times faster along the rows of A's transpose.
            low = F.linear(wide, lora_a.to(wide.dtype).T.contiguous())
            out.addmm_(low, lora_b.to(wide.dtype), alpha=self._adapter.scale)
        out = out.to(x.dtype, copy=self.how.widen)  # Its memory is used again.
        return out.view(*x.shape[:-1], self.out_features), low

    def gradients(
        self,
        grad: torch.Tensor,
        x: torch.Tensor | None,
        saved: tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None],
        for_x: bool,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Of input, A and B.

        Args:
            grad: of the output, (..., out_features).
            x: the input; None where there is no adapter.
            saved: x @ A, A and B.
            for_x: whether the input's is asked for; (N, in_features), good until the next product.
        """
        wide = self.how.cast(grad.reshape(-1, self.out_features), "in")
        grad_x = self.how.backwards(wide, products.weight_of(self.base)) if for_x else None
        low, lora_a, lora_b = saved
        if lora_a is None or lora_b is None or low is None or x is None or self._adapter is None:
            return grad_x, None, None
        grad_low = (wide @ lora_b.to(wide.dtype).T).mul_(self._adapter.scale)
        grad_b = (low.T @ wide).mul_(self._adapter.scale)
        wide_x = self.how.cast(x.reshape(-1, self.in_features), "input")
        grad_a = (grad_low.T @ wide_x).T
        if grad_x is not None:
            grad_x.addmm_(grad_low, lora_a.to(wide.dtype).T)
        return grad_x, grad_a.to(lora_a.dtype), grad_b.to(lora_b.dtype)


class _Plain(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        lora_a: torch.Tensor | None,
        lora_b: torch.Tensor | None,
        layer: Linear,
    ) -> torch.Tensor:
        out, low = layer.product(x, lora_a, lora_b)
        ctx.layer, ctx.shape, ctx.dtype = layer, x.shape, x.dtype
        ctx.save_for_backward(None if lora_a is None else x, low, lora_a, lora_b)
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        x, *saved = ctx.saved_tensors
        grad_x, grad_a, grad_b = ctx.layer.gradients(grad, x, saved, ctx.needs_input_grad[0])
        if grad_x is not None:
            grad_x = grad_x.to(ctx.dtype, copy=ctx.layer.how.widen).view(ctx.shape)
        return grad_x, grad_a, grad_b, None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        gate: torch.Tensor,
        up: torch.Tensor,
        lora_a: torch.Tensor | None,
        lora_b: torch.Tensor | None,
        layer: Linear,
    ) -> torch.Tensor:
        out, low = layer.product(F.silu(gate) * up, lora_a, lora_b)
        ctx.layer = layer
        ctx.save_for_backward(gate, up, low, lora_a, lora_b)
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        gate, up, *saved = ctx.saved_tensors
        needed = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        act = F.silu(gate)
        grad_x, grad_a, grad_b = ctx.layer.gradients(grad, act * up, saved, needed)
        if grad_x is None:
            return None, None, grad_a, grad_b, None
        grad_x = grad_x.view(gate.shape)
        grad_up = (grad_x * act).to(up.dtype)
        # silu'(g) = s * (1 + g * (1 - s)) = s + silu(g) * (1 - s), with s = sigmoid(g).
        wide = gate.to(grad_x.dtype)
        slope = torch.sigmoid(wide)
        slope += F.silu(wide).mul_(1 - slope)
        grad_gate = slope.mul_(grad_x).mul_(up).to(gate.dtype)
        return grad_gate, grad_up, grad_a, grad_b, None


class GatedMLP(torch.nn.Module):
    """In the place of a `down(silu(gate(x)) * up(x))` while a training lasts."""

    def __init__(self, gate: Linear, up: Linear, down: Linear) -> None:
        """Takes the layers, already in their lean form."""
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = gate, up, down
        self.only_N: torch.Tensor | None = None
        """Positions (of rows times tokens) that count; those of the others are left zero. For the
        last layer of a model, whose other positions nobody reads."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., hidden) to (..., hidden)."""
        if self.only_N is None:
            return self.down_proj.gated(self.gate_proj(x), self.up_proj(x))
        flat = x.reshape(-1, x.shape[-1])
        few = flat[self.only_N]
        out = self.down_proj.gated(self.gate_proj(few), self.up_proj(few))
        return torch.zeros_like(flat).index_copy(0, self.only_N, out).view(x.shape)
