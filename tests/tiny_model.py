"""A base model small enough to be made in a test: a random Llama that speaks in single bytes."""

from __future__ import annotations

from collections.abc import Sequence

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers

from shared.cards import card as cards
from shared.cards import manifest as manifests
from shared.lora import linear, tensors
from shared.models import base as bases

CONTEXT_TOKENS = 192
_TEMPLATE = (
    "{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|answer|>{% endif %}"
)


def tiny_base(seed: int = 0) -> bases.BaseModel:
    """The same seed gives the same weights; weights large enough for varied answers."""
    tokenizer = _tokenizer()
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT_TOKENS,
        initializer_range=0.3,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.LlamaForCausalLM(config)
    model.requires_grad_(False)
    model.eval()
    return bases.BaseModel("tiny", "main", bases.fingerprint(model), model, tokenizer)


def card_for(
    base: bases.BaseModel,
    name: str = "tiny-skill",
    version: str = "1.0.0",
    seed: int = 1,
    kinds: tuple[str, ...] = ("q_proj", "v_proj", "down_proj"),
    fingerprint: str = "",
    rank: int = 2,
    route: str = "",
) -> cards.LoRACard:
    """A card with random weights, strong enough to change the model's answers."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for found, layer in base.model.named_modules():
        path = found.removesuffix(".base")  # Where another card has wrapped it already.
        if isinstance(layer, torch.nn.Linear) and path.rpartition(".")[2] in kinds:
            adapter = linear.Adapter(
                torch.randn(layer.in_features, rank, generator=generator),
                torch.randn(rank, layer.out_features, generator=generator),
                scale=1.0,
            )
            weights[path] = tensors.weights_of(adapter, alpha=float(rank), dtype="float32")
    manifest = manifests.Manifest(
        name=name,
        version=version,
        base_model=manifests.BaseModelReference(
            id=base.id, revision=base.revision, fingerprint=fingerprint or base.fingerprint
        ),
        target_modules=kinds,
        domain="testing",
        description=f"card {name} of the tests",
        routing=manifests.RoutingProfile(route=route) if route else None,
        created_at="2025-01-01T00:00:00+00:00",
    )
    return cards.LoRACard(manifest, weights)


def reference_ids(base: bases.BaseModel, query: str, max_new_tokens: int) -> list[int]:
    """What transformers itself generates, greedily, without the end token."""
    return continued_ids(base, base.prompt_ids(query), max_new_tokens)


def continued_ids(
    base: bases.BaseModel, prompt_ids: Sequence[int], max_new_tokens: int
) -> list[int]:
    """How it goes on behind a prompt."""
    prompt = torch.tensor([list(prompt_ids)])
    out = base.model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        use_cache=True,
    )
    ids: list[int] = out[0, prompt.shape[1] :].tolist()
    return ids[: ids.index(eos)] if (eos := base.tokenizer.eos_token_id) in ids else ids


def reference_text(base: bases.BaseModel, query: str, max_new_tokens: int) -> str:
    ids = reference_ids(base, query, max_new_tokens)
    text: str = base.tokenizer.decode(ids, skip_special_tokens=True)
    return text


def _tokenizer() -> transformers.PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: at for at, symbol in enumerate(alphabet)}
    inner = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="<|end|>",
        additional_special_tokens=["<|user|>", "<|answer|>"],
    )
    tokenizer.chat_template = _TEMPLATE
    return tokenizer
