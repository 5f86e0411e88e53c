"""Losses straight from the last hidden states, without the logits' graph.

A loss and its gradient to the hidden states are computed together, some tokens and a piece of the
vocabulary at a time: no float32 copy of all logits, no softmax and no gradient of their size.
Logits are rounded to the model's dtype, as a model's own output is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch

from services.trainer.lean import products

_LOGITS_BYTES = 32 * 1024 * 1024
"""Of the tokens that are looked at together."""


@dataclasses.dataclass(frozen=True)
class _Scores:
    """Logits of some tokens."""

    logits_N_V: torch.Tensor
    """In the dtype of the model."""
    log_total_N: torch.Tensor
    """Logarithm of the summed exponentials, float32."""

    def log_probabilities(self, start: int, stop: int) -> torch.Tensor:
        """Of a piece of the vocabulary, float32."""
        return self.logits_N_V[:, start:stop].float() - self.log_total_N[:, None]


class Head:
    """The frozen vocabulary projection of a model."""

    def __init__(self, layer: torch.nn.Linear, how: products.Products) -> None:
        """Takes the layer.

        Args:
            layer: hidden to vocabulary.
            how: multiplies its weights.
        """
        self._weight_V_H, self._bias_V, self._how = layer.weight, layer.bias, how

    def cross_entropy(self, states_N_H: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
        """Summed over the tokens; float32.

        Args:
            states_N_H: the model's last hidden states.
            labels_N: the right tokens.
        """
        loss: torch.Tensor = _CrossEntropy.apply(states_N_H, labels_N, self)  # type: ignore[no-untyped-call]
        return loss

    def divergence(self, states_N_H: torch.Tensor, base_N_H: torch.Tensor) -> torch.Tensor:
        """Kullback-Leibler from the base's distributions, summed over the tokens; float32.

        Args:
            states_N_H: the model's last hidden states.
            base_N_H: those of the bare base for the same tokens.
        """
        loss: torch.Tensor = _Divergence.apply(states_N_H, base_N_H, self)  # type: ignore[no-untyped-call]
        return loss

    def likeliest(self, states_N_H: torch.Tensor) -> torch.Tensor:
        """The token with the highest logit, (N,)."""
        return torch.cat(
            [self.scores(states_N_H[part]).logits_N_V.argmax(-1) for part in self.parts(states_N_H)]
        )

    def parts(self, states_N_H: torch.Tensor, together: int = 1) -> Iterator[slice]:
        """Tokens that are looked at together.

        Args:
            states_N_H: of all.
            together: how many sets of logits are held of each.
        """
        count, vocabulary = len(states_N_H), len(self._weight_V_H)
        most = max(1, _LOGITS_BYTES // (together * vocabulary * states_N_H.element_size()))
        size = -(-count // -(-count // most)) if count else 1
        for start in range(0, count, size):
            yield slice(start, start + size)

    def scores(self, states_N_H: torch.Tensor) -> _Scores:
        """Logits, and what makes probabilities of them."""
        wide = self._how.cast(states_N_H, "in")
        logits_N_V = states_N_H.new_empty(len(states_N_H), len(self._weight_V_H))
        peak_N = wide.new_full((len(wide),), -torch.inf, dtype=torch.float32)
        total_N = torch.zeros_like(peak_N)
        for start, piece_P_H in self._how.pieces(self._weight_V_H):
            stop = start + len(piece_P_H)
            found = wide @ piece_P_H.T
            if self._bias_V is not None:
                found += self._bias_V[start:stop]
            logits_N_V[:, start:stop] = found
            found = logits_N_V[:, start:stop].float()
            higher_N = torch.maximum(peak_N, found.amax(-1))
            total_N *= (peak_N - higher_N).exp_()
            total_N += (found - higher_N[:, None]).exp_().sum(-1)
            peak_N = higher_N
        return _Scores(logits_N_V, total_N.log_().add_(peak_N))

    def pieces(self) -> Iterator[tuple[int, torch.Tensor]]:
        """See `products.Products.pieces`."""
        return self._how.pieces(self._weight_V_H)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states_N_H: torch.Tensor, labels_N: torch.Tensor, head: Head
    ) -> torch.Tensor:
        loss = torch.zeros((), device=states_N_H.device)
        grad_N_H = _room(ctx, states_N_H)
        for part in head.parts(states_N_H):
            scores, labels = head.scores(states_N_H[part]), labels_N[part]
            right = scores.logits_N_V.gather(1, labels[:, None])[:, 0].float()
            loss += (scores.log_total_N - right).sum()
            if grad_N_H is None:
                continue
            rows = torch.arange(len(labels), device=labels.device)
            for start, piece_P_H in head.pieces():
                stop = start + len(piece_P_H)
                grad_N_P = scores.log_probabilities(start, stop).exp_()
                inside = (labels >= start) & (labels < stop)
                grad_N_P[rows[inside], labels[inside] - start] -= 1
                grad_N_H[part] += grad_N_P.to(piece_P_H.dtype) @ piece_P_H
        ctx.save_for_backward(grad_N_H)
        ctx.dtype = states_N_H.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        (grad_N_H,) = ctx.saved_tensors
        return None if grad_N_H is None else (grad_N_H * grad).to(ctx.dtype), None, None


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states_N_H: torch.Tensor, base_N_H: torch.Tensor, head: Head
    ) -> torch.Tensor:
        loss = torch.zeros((), device=states_N_H.device)
        grad_N_H = _room(ctx, states_N_H)
        for part in head.parts(states_N_H, together=2):
            card, base = head.scores(states_N_H[part]), head.scores(base_N_H[part])
            for start, piece_P_H in head.pieces():
                stop = start + len(piece_P_H)
                card_N_P = card.log_probabilities(start, stop)
                base_N_P = base.log_probabilities(start, stop)
                likely_N_P = base_N_P.exp()
                loss += (likely_N_P * (base_N_P - card_N_P)).sum()
                if grad_N_H is not None:
                    grad_N_P = card_N_P.exp_().sub_(likely_N_P)
                    grad_N_H[part] += grad_N_P.to(piece_P_H.dtype) @ piece_P_H
        ctx.save_for_backward(grad_N_H)
        ctx.dtype = states_N_H.dtype
        return loss

    backward = _CrossEntropy.backward


def _room(ctx: Any, states_N_H: torch.Tensor) -> torch.Tensor | None:
    """For the gradient, where one is asked for: float32, as its pieces are added up."""
    return torch.zeros_like(states_N_H, dtype=torch.float32) if ctx.needs_input_grad[0] else None
