"""What a backend is given and what it gives back."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch

from services.trainer import data, loop, network
from shared import errors
from shared.lora import linear
from shared.models import base as bases


@dataclasses.dataclass(frozen=True)
class Work:
    """One training."""

    base: bases.BaseModel
    """Left as it was, bit for bit."""
    ranks: Mapping[str, int]
    """Of the layers to adapt, by path."""
    scale: float
    """alpha / rank, of all layers."""
    facts: Sequence[Sequence[data.Example]]
    """Each in all its wordings; at least one."""
    replay: Sequence[data.Example]
    """Questions with the base's own answers."""
    settings: loop.LoopSettings
    from_layer: int = 0
    """Decoder layers below are not adapted: their outputs never change in a training."""

    def fresh(self) -> dict[str, linear.Adapter]:
        """Adapters to begin with, by path: the same for every backend, decided by the seed.

        Raises:
            errors.InvalidInputError: a rank does not fit its layer.
        """
        device = next(self.base.model.parameters()).device
        generator = torch.Generator().manual_seed(self.settings.seed)
        made = {}
        for path, rank in self.ranks.items():
            layer = self.base.model.get_submodule(path)
            try:
                adapter = linear.fresh(
                    layer.in_features, layer.out_features, rank, self.scale * rank, generator
                )
            except errors.InvalidInputError as error:
                raise errors.InvalidInputError(f"layer {path}: {error}") from error
            for name in ("lora_a", "lora_b"):
                weights = getattr(adapter, name).detach().to(device)
                setattr(adapter, name, torch.nn.Parameter(weights))
            made[path] = adapter
        return made

    def loop(self, net: network.Network) -> loop.Loop:
        """The course of this training on a network."""
        pad_id = self.base.tokenizer.pad_token_id or 0
        return loop.Loop(net, self.facts, self.replay, pad_id, self.settings)


@dataclasses.dataclass(frozen=True)
class Training:
    """A training under way, while its backend's context is open."""

    loop: loop.Loop
    """Runs stepwise; its state can be saved and restored."""
    adapters: Callable[[], dict[str, linear.Adapter]]
    """A and B as they are now, float32 on the CPU, by path of the layer."""


class Backend(Protocol):
    """Puts adapters into the model and takes them out again."""

    def open(self, work: Work) -> contextlib.AbstractContextManager[Training]:
        """The model is adapted while the context is open, and as it was before afterwards.

        Raises:
            errors.InvalidInputError: a rank does not fit its layer.
            errors.ConfigError: this backend can't do that work.
        """
        ...


def at_rest(adapters: Mapping[str, linear.Adapter]) -> dict[str, linear.Adapter]:
    """Copies that later steps don't change, float32 on the CPU."""
    return {
        path: linear.Adapter(
            one.lora_a.detach().float().cpu().clone(),
            one.lora_b.detach().float().cpu().clone(),
            one.scale,
        )
        for path, one in adapters.items()
    }
