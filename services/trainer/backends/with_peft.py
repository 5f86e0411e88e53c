"""PEFT's own layers under the same course: what cards are compared with, and a second opinion.

Every rank, scale and first weight is that of the own loop, so that both take the same steps up to
rounding. PEFT computes as its users know it: one forward pass with the logits of every token.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from services.trainer import network
from services.trainer.backends import base
from shared import errors
from shared.lora import linear

_ADAPTER = "default"


class Peft:
    """`peft.get_peft_model` with a `LoraConfig`."""

    def __init__(self, gradient_checkpointing: bool = False) -> None:
        """Looks for the package.

        Args:
            gradient_checkpointing: by transformers' own switch.

        Raises:
            errors.ConfigError: peft is not installed.
        """
        try:
            import peft
        except ImportError as error:
            raise errors.ConfigError(
                "trainer.backend peft needs the package peft: pip install '.[peft]', or choose own"
            ) from error
        self._peft: Any = peft
        self._gradient_checkpointing = gradient_checkpointing

    @contextlib.contextmanager
    def open(self, work: base.Work) -> Iterator[base.Training]:
        """See `base.Backend`."""
        first = work.fresh()
        model = work.base.model
        ranks = dict(work.ranks)
        most = max(ranks.values())
        settings = self._peft.LoraConfig(
            r=most,
            lora_alpha=work.scale * most,
            target_modules=list(ranks),
            rank_pattern={f"^{path}": rank for path, rank in ranks.items()},
            alpha_pattern={f"^{path}": work.scale * rank for path, rank in ranks.items()},
            lora_dropout=0.0,
            bias="none",
            task_type="CAUSAL_LM",
        )
        adapted: Any = None
        plain = {path: model.get_submodule(path) for path in ranks}
        try:
            with warnings.catch_warnings():
                # It asks transformers by a name that is to be given up.
                warnings.simplefilter("ignore", FutureWarning)
                adapted = self._peft.get_peft_model(model, settings)
            layers = {path: model.get_submodule(path) for path in ranks}
            put(layers, first)
            if self._gradient_checkpointing:
                # Only a model in training mode recomputes; LoRA's dropout is 0.
                adapted.train()
                model.activation_checkpointing_enable()
            else:
                adapted.eval()
            net = network.WholeModel(adapted, trained(layers), adapted.disable_adapter)
            yield base.Training(work.loop(net), lambda: taken(layers, work.scale))
        finally:
            if self._gradient_checkpointing:
                model.activation_checkpointing_disable()
            if adapted is not None:
                adapted.unload()
            # It may have failed when some layers were adapted.
            vars(model).pop("peft_config", None)
            for path, layer in plain.items():
                model.set_submodule(path, layer)
            model.eval().requires_grad_(False)


def put(layers: Mapping[str, Any], adapters: Mapping[str, linear.Adapter]) -> None:
    """Copies adapters into PEFT's layers, which keep both matrices transposed."""
    with torch.no_grad():
        for path, adapter in adapters.items():
            layers[path].lora_A[_ADAPTER].weight.copy_(adapter.lora_a.T)
            layers[path].lora_B[_ADAPTER].weight.copy_(adapter.lora_b.T)


def trained(layers: Mapping[str, Any]) -> list[torch.nn.Parameter]:
    """The parameters of PEFT's layers, A and B of each in turn."""
    return [
        matrices[_ADAPTER].weight
        for layer in layers.values()
        for matrices in (layer.lora_A, layer.lora_B)
    ]


def taken(layers: Mapping[str, Any], scale: float) -> dict[str, linear.Adapter]:
    """Adapters as PEFT's layers hold them now."""
    return base.at_rest(
        {
            path: linear.Adapter(
                layer.lora_A[_ADAPTER].weight.T, layer.lora_B[_ADAPTER].weight.T, scale
            )
            for path, layer in layers.items()
        }
    )
