"""A base model in less memory: linear layers in 8 or 4 bits, under cards that stay as they are.

The fingerprint is taken before, so that cards fit the model whether it is quantised or not. The
output layer is left alone: an error there would show in every token.
"""

from __future__ import annotations

from typing import Any, Literal

import torch

from shared import errors

Kind = Literal["none", "int8", "nf4"]
"""int8: one scale an output channel (torchao), on any machine. nf4: 4-bit normal float
(bitsandbytes; Dettmers et al. 2023), made for CUDA, and slower than float32 on a CPU."""


def quantize(model: Any, kind: Kind) -> None:
    """Quantises the weights of a transformers causal LM in place.

    Raises:
        errors.ConfigError: the package for it is not installed.
    """
    if kind == "int8":
        _int8(model)
    elif kind == "nf4":
        _nf4(model)


def _int8(model: Any) -> None:
    try:
        from torchao import quantization as torchao
    except ImportError as error:
        raise _missing("int8", "torchao") from error
    inner = _inner_linears(model)
    torchao.quantize_(
        model,
        torchao.Int8WeightOnlyConfig(version=2),
        filter_fn=lambda module, path: path in inner,
    )


def _nf4(model: Any) -> None:
    try:
        import bitsandbytes
    except ImportError as error:
        raise _missing("nf4", "bitsandbytes") from error
    for path, layer in _inner_linears(model).items():
        small = bitsandbytes.nn.Linear4bit(
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            compute_dtype=layer.weight.dtype,
            quant_type="nf4",
        )
        small.weight = bitsandbytes.nn.Params4bit(
            layer.weight.detach().cpu(), requires_grad=False, quant_type="nf4"
        )
        small.bias = layer.bias
        parent, _, name = path.rpartition(".")
        # Moving it to its device is what quantises it.
        setattr(model.get_submodule(parent), name, small.to(layer.weight.device))


def _inner_linears(model: Any) -> dict[str, torch.nn.Linear]:
    outputs = model.get_output_embeddings()
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not outputs
    }


def _missing(kind: str, package: str) -> errors.ConfigError:
    return errors.ConfigError(
        f"quantization {kind!r} needs the package {package}: "
        "pip install '.[quantized]', or choose none"
    )
