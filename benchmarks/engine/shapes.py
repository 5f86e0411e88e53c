"""The models and cards that are measured, and the same cards for PEFT."""

from __future__ import annotations

import copy
import dataclasses
import pathlib
import warnings
from typing import Any

import torch
import transformers

from shared.cards import card as cards
from shared.cards import format as formats
from shared.cards import manifest as manifests
from shared.cards import peft_layout
from shared.lora import linear, tensors
from shared.models import base as bases

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
ALL_SEVEN = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
RANK = 8
_EXAMPLES = 100


@dataclasses.dataclass(frozen=True)
class Card:
    """One card, in this project's form and in PEFT's."""

    name: str
    file: pathlib.Path
    digest: str
    peft_folder: pathlib.Path


def qwen(dtype: torch.dtype) -> Any:
    """Qwen2.5-0.5B with random weights and its own vocabulary, 494 M parameters."""
    config = transformers.Qwen2Config(
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        vocab_size=151936,
        tie_word_embeddings=True,
        eos_token_id=None,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.eval().requires_grad_(False)


def wide() -> Any:
    """Four layers, 256 wide: where the overhead of adapters shows most."""
    config = transformers.LlamaConfig(
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=4096,
        eos_token_id=None,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).eval().requires_grad_(False)


def twin(model: Any) -> Any:
    """A copy, for the peer to change as it likes."""
    return copy.deepcopy(model)


def dtype_name(model: Any) -> str:
    """What a card calls the dtype of the model's weights."""
    return str(model.dtype).removeprefix("torch.")


def make_cards(
    model: Any,
    count: int,
    folder: pathlib.Path,
    kinds: tuple[str, ...] = ATTENTION,
    rank: int = RANK,
    dtype: str = "float32",
    size: float = 0.02,
) -> list[Card]:
    """Cards with random weights of a standard deviation, with the manifest of a trained card."""
    generator = torch.Generator().manual_seed(1)
    fingerprint = bases.fingerprint(model)
    found = []
    for number in range(count):
        name = f"card-{number:03}"
        weights = {
            path: tensors.weights_of(_adapter(layer, rank, generator, size), 2.0 * rank, dtype)
            for path, layer in model.named_modules()
            if isinstance(layer, torch.nn.Linear) and path.rpartition(".")[2] in kinds
        }
        card = cards.LoRACard(_manifest(name, kinds, fingerprint), weights)
        file = folder / f"{name}{formats.SUFFIX}"
        digest = formats.LoRAFormat.save(card, file)
        peft_layout.export(card, folder / "peft" / name)
        found.append(Card(name, file, digest, folder / "peft" / name))
    return found


def with_peft(model: Any, made: list[Card]) -> Any:
    """The model as PEFT adapts it, with all these cards loaded."""
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.PeftModel.from_pretrained(model, made[0].peft_folder, made[0].name)
        for card in made[1:]:
            adapted.load_adapter(card.peft_folder, card.name)
    return adapted.eval()


def _adapter(
    layer: torch.nn.Linear, rank: int, generator: torch.Generator, size: float
) -> linear.Adapter:
    return linear.Adapter(
        torch.randn(layer.in_features, rank, generator=generator) * size,
        torch.randn(rank, layer.out_features, generator=generator) * size,
        2.0,
    )


def _manifest(name: str, kinds: tuple[str, ...], fingerprint: str) -> manifests.Manifest:
    return manifests.Manifest(
        name=name,
        version="1.0.0",
        base_model=manifests.BaseModelReference(
            id="benchmark", revision="main", fingerprint=fingerprint
        ),
        target_modules=kinds,
        domain="benchmarks",
        description="a card of the benchmark",
        routing=manifests.RoutingProfile(
            examples=tuple(f"What is the answer to question {n}?" for n in range(_EXAMPLES))
        ),
        created_at="2026-01-01T00:00:00+00:00",
    )
