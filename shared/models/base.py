"""Loads the frozen base model, any Hugging Face causal LM or the embedded one, and names it.

Knows nothing about cards. The fingerprint ties every card to the exact weights it was made for.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
import transformers

from shared import errors
from shared.models import chat, files, quantization

EMBEDDED = "embedded"
DEFAULT_REVISION = "main"
"""Of a Hugging Face model, where nobody names one."""
EMBEDDED_FOLDER = files.EMBEDDED_FOLDER
_SAMPLES_A_TENSOR = 64


@dataclasses.dataclass(frozen=True)
class BaseModel:
    """A loaded base model with everything that belongs to it."""

    id: str
    """What `model.base` in config.yaml says."""
    revision: str
    fingerprint: str
    """SHA-256 over configuration, weight shapes and sampled weights."""
    model: Any
    """The transformers causal LM, frozen, in evaluation mode."""
    tokenizer: Any

    def prompt_ids(self, question: str) -> list[int]:
        """Token ids of a chat with one user message, ready for the answer to follow."""
        return self.chat_ids([chat.Message(chat.USER, question)])

    def chat_ids(self, messages: Sequence[chat.Message]) -> list[int]:
        """Token ids of a conversation, ready for the answer to follow; see `chat.ids`.

        Raises:
            errors.InvalidInputError: the chat template refuses it.
        """
        return chat.ids(self.tokenizer, messages, self._takes_system)

    @functools.cached_property
    def _takes_system(self) -> bool:
        return chat.takes_system(self.tokenizer)

    def answer_ids(self, answer: str) -> list[int]:
        """Token ids of an answer with the end token behind it."""
        # Code may quote an end token without ending there.
        ids = self.tokenizer(answer, add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ]
        return [*ids, self.tokenizer.eos_token_id]


def load(
    name: str,
    revision: str = "",
    dtype: str = "float32",
    quantized: quantization.Kind = "none",
    device: str = "cpu",
) -> BaseModel:
    """Loads a base model and its tokenizer.

    Args:
        name: `embedded`, a local path or a Hugging Face id.
        revision: of a Hugging Face model; empty for its default.
        dtype: float32 or bfloat16.
        quantized: how the linear layers are kept; see `shared.models.quantization`.
        device: `cpu`, `cuda` or `cuda:NUMBER`.

    Raises:
        errors.NotFoundError: no such model.
        errors.ConfigError: the tokenizer has no chat template, a package is missing, or there is
            no such device.
    """
    if not device.startswith("cpu") and not torch.cuda.is_available():
        raise errors.ConfigError(f"device {device!r}: torch finds no GPU here; use cpu")
    source = str(EMBEDDED_FOLDER) if name == EMBEDDED else name
    transformers.utils.logging.disable_progress_bar()
    chosen = {"revision": revision} if revision else {}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **chosen)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            source, dtype=getattr(torch, dtype), **chosen
        )
    except (OSError, ValueError) as error:
        raise errors.NotFoundError(
            f"model.base {name!r} can't be loaded: {error}; give `embedded`, a local path or a "
            "Hugging Face id"
        ) from error
    if tokenizer.chat_template is None:
        raise errors.ConfigError(
            f"model.base {name!r}: its tokenizer has no chat template; use an instruction-tuned "
            "model"
        )
    model.requires_grad_(False)
    model.eval()
    whole = fingerprint(model)
    quantization.quantize(model, quantized)
    model.to(device)
    return BaseModel(
        id=name,
        revision=revision or DEFAULT_REVISION,
        fingerprint=whole,
        model=model,
        tokenizer=tokenizer,
    )


def fingerprint(model: Any) -> str:
    """SHA-256 over configuration, weight names, shapes and evenly spaced samples of each weight.

    Samples are taken in float32 rounded to bfloat16, so that the same weights loaded in another
    dtype keep their fingerprint.
    """
    skipped = ("transformers_version", "_name_or_path", "dtype", "torch_dtype", "use_cache")
    config = {k: v for k, v in model.config.to_dict().items() if k not in skipped}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, weight in sorted(model.state_dict().items()):
        flat = weight.detach().reshape(-1)
        stride = max(1, flat.numel() // _SAMPLES_A_TENSOR)
        sample = flat[::stride][:_SAMPLES_A_TENSOR].to(torch.bfloat16).contiguous()
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        digest.update(sample.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
