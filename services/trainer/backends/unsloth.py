"""Unsloth's kernels under the same course, where an NVIDIA GPU and the package are there.

Unsloth patches a model as it loads it, so that it reads the base a second time. Written after its
documentation; no machine with a GPU has run it within this project yet.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Iterator

import torch

from services.trainer import network
from services.trainer.backends import base, with_peft
from shared import errors
from shared.models import base as bases
from shared.models import quantization

_LONGEST_TOKENS = 2048


class Unsloth:
    """`FastLanguageModel.get_peft_model` on a base of its own."""

    def __init__(
        self, gradient_checkpointing: bool = False, quantized: quantization.Kind = "none"
    ) -> None:
        """Looks for GPU and package.

        Args:
            gradient_checkpointing: Unsloth's own way of it.
            quantized: `nf4` loads the base in 4 bits.

        Raises:
            errors.ConfigError: one of them is missing.
        """
        if not torch.cuda.is_available():
            raise errors.ConfigError(
                "trainer.backend unsloth needs an NVIDIA GPU, and torch finds none here: choose "
                "own or peft"
            )
        if importlib.util.find_spec("unsloth") is None:
            raise errors.ConfigError(
                "trainer.backend unsloth needs the package unsloth: pip install unsloth, in an "
                "environment with CUDA's build of torch; or choose own or peft"
            )
        self._gradient_checkpointing = gradient_checkpointing
        self._quantized = quantized

    @contextlib.contextmanager
    def open(self, work: base.Work) -> Iterator[base.Training]:
        """See `base.Backend`.

        Raises:
            errors.ConfigError: the layers have different ranks, or some of a kind are left out.
        """
        kinds, rank = _uniform(work)
        fast = importlib.import_module("unsloth").FastLanguageModel
        source = work.base.id
        loaded, _ = fast.from_pretrained(
            model_name=str(bases.EMBEDDED_FOLDER) if source == bases.EMBEDDED else source,
            revision=work.base.revision,
            max_seq_length=_LONGEST_TOKENS,
            dtype=work.base.model.dtype,
            load_in_4bit=self._quantized == "nf4",
        )
        adapted = fast.get_peft_model(
            loaded,
            r=rank,
            lora_alpha=work.scale * rank,
            lora_dropout=0,
            bias="none",
            target_modules=kinds,
            use_gradient_checkpointing="unsloth" if self._gradient_checkpointing else False,
            random_state=work.settings.seed,
        )
        layers = {path: loaded.get_submodule(path) for path in work.ranks}
        with_peft.put(layers, work.fresh())
        net = network.WholeModel(adapted, with_peft.trained(layers), adapted.disable_adapter)
        yield base.Training(work.loop(net), lambda: with_peft.taken(layers, work.scale))


def _uniform(work: base.Work) -> tuple[list[str], int]:
    """The kinds of layer and their one rank: Unsloth knows no others."""
    kinds = sorted({path.rpartition(".")[2] for path in work.ranks})
    whole = {
        path
        for path, module in work.base.model.named_modules()
        if isinstance(module, torch.nn.Linear) and path.rpartition(".")[2] in kinds
    }
    ranks = set(work.ranks.values())
    if len(ranks) != 1 or whole != set(work.ranks):
        raise errors.ConfigError(
            "trainer.backend unsloth adapts all layers of a kind with one rank: take `ranks` and "
            "`trainable_from_layer` out of the recipe, raise trainer.card_budget_mb, or choose own"
        )
    return kinds, ranks.pop()
