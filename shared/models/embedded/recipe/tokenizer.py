"""Trains the byte-fallback BPE tokenizer of the embedded base model."""

from __future__ import annotations

import json
from collections.abc import Iterable

import tokenizers
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

PAD, USER, ASSISTANT, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"

CHAT_TEMPLATE = (
    # There is no token for system messages: they stand in front of the first question.
    "{% set told = namespace(system='') %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}"
    "{% set told.system = told.system + message['content'] + '\n\n' %}"
    "{% else %}"
    "{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'user' %}"
    "{{ told.system }}{% set told.system = '' %}"
    "{% endif %}"
    "{{ message['content'] + '<|end|>' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train(texts: Iterable[str], vocab_size: int) -> transformers.PreTrainedTokenizerFast:
    """Trains a tokenizer whose every byte is covered, digits one by one.

    Args:
        texts: the corpus.
        vocab_size: size of the vocabulary, the 256 bytes and special tokens included.
    """
    core = tokenizers.Tokenizer(models.BPE(byte_fallback=True, fuse_unk=False))
    core.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("▁", behavior="merged_with_next"),
            pre_tokenizers.Punctuation(behavior="isolated"),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    core.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1, right=0),
        ]
    )
    specials = [PAD, USER, ASSISTANT, END, *(f"<0x{byte:02X}>" for byte in range(256))]
    core.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=specials, show_progress=False, min_frequency=2
        ),
    )
    core = _without_special_bytes(core)
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=PAD, eos_token=END, padding_side="left"
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def _without_special_bytes(core: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Bytes must be ordinary entries: as special tokens they would vanish when decoding."""
    state = json.loads(core.to_str())
    state["added_tokens"] = [
        token for token in state["added_tokens"] if not token["content"].startswith("<0x")
    ]
    return tokenizers.Tokenizer.from_str(json.dumps(state))
