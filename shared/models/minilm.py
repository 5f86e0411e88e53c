"""The forward pass of MiniLM, a small BERT (Devlin et al., 2019), on one core without waste.

A question of a dozen words is bound by how fast the weights come from memory and by what is called
around the matrix products. So this is the bare pass, and the linear layers' weights are kept in
half precision, packed for the processor; products and sums are float32. The vectors are those of
the reference implementation to about 1e-6 of a cosine. Knows nothing about texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch.nn import functional

_LAYERS = 6
_HEADS = 12
_WIDTH = 384
_EPSILON = 1e-12
Weights = Mapping[str, torch.Tensor]
_Linear = Callable[[torch.Tensor], torch.Tensor]


class MiniLM:
    """Six layers of width 384 with 12 heads."""

    def __init__(self, weights: Weights) -> None:
        """Packs the weights.

        Args:
            weights: float32, named as transformers names those of `BertModel`.
        """
        self._words = weights["embeddings.word_embeddings.weight"]
        # Every text is of the first type.
        self._positions = (
            weights["embeddings.position_embeddings.weight"]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
        self._norm = _Norm(weights, "embeddings.LayerNorm")
        self._layers = [_Layer(weights, f"encoder.layer.{at}.") for at in range(_LAYERS)]

    @torch.inference_mode()
    def means(self, tokens_B_T: torch.Tensor, keep_B_T: torch.Tensor | None) -> torch.Tensor:
        """The mean over each text's tokens of what the last layer says, at unit length.

        Args:
            tokens_B_T: int64, at most 512 a text.
            keep_B_T: bool, which of them are no padding; None where none is.

        Returns:
            Shape (B, 384), float32.
        """
        embedded = functional.embedding(tokens_B_T, self._words)
        x_B_T_D = self._norm(embedded + self._positions[: tokens_B_T.shape[1]])
        mask = None if keep_B_T is None else keep_B_T[:, None, None, :]
        for layer in self._layers:
            x_B_T_D = layer(x_B_T_D, mask)
        # Scaling to unit length makes a sum as good as a mean.
        kept = x_B_T_D if keep_B_T is None else x_B_T_D * keep_B_T[:, :, None]
        return functional.normalize(kept.sum(dim=1), dim=1)


class _Layer:
    def __init__(self, weights: Weights, name: str) -> None:
        self._query_key_value = _linear(
            weights, *(f"{name}attention.self.{part}" for part in ("query", "key", "value"))
        )
        self._out = _linear(weights, f"{name}attention.output.dense")
        self._out_norm = _Norm(weights, f"{name}attention.output.LayerNorm")
        self._up = _linear(weights, f"{name}intermediate.dense")
        self._down = _linear(weights, f"{name}output.dense")
        self._down_norm = _Norm(weights, f"{name}output.LayerNorm")

    def __call__(self, x_B_T_D: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        split = self._query_key_value(x_B_T_D).unflatten(-1, (3, _HEADS, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, mask)
        x_B_T_D = self._out_norm(x_B_T_D + self._out(seen.transpose(1, 2).flatten(2)))
        return self._down_norm(x_B_T_D + self._down(functional.gelu(self._up(x_B_T_D))))


class _Norm:
    def __init__(self, weights: Weights, name: str) -> None:
        self._weight, self._bias = weights[f"{name}.weight"], weights[f"{name}.bias"]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(x, (_WIDTH,), self._weight, self._bias, _EPSILON)


def _linear(weights: Weights, *names: str) -> _Linear:
    """Linear layers with the same input as one."""
    weight = torch.cat([weights[f"{name}.weight"] for name in names])
    bias = torch.cat([weights[f"{name}.bias"] for name in names])
    if "fbgemm" not in torch.backends.quantized.supported_engines:  # Not x86.
        return lambda x: functional.linear(x, weight, bias)
    packed = torch.ops.quantized.linear_prepack_fp16(weight, bias)
    return lambda x: torch.ops.quantized.linear_dynamic_fp16(x, packed)
