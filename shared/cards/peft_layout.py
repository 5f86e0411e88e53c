"""Cards as PEFT adapter directories, and back: `adapter_config.json`, `adapter_model.safetensors`.

Byte work alone, without torch and without peft. PEFT keeps `lora_A` as (rank, in_features) and
`lora_B` as (out_features, rank); a card keeps both transposed. Whatever an adapter has that a card
can't express is refused by name rather than dropped.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import safetensors

from shared import atomic, errors
from shared.cards import card as cards
from shared.cards import manifest as manifests

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_KEY = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])\.weight")
_ITEM: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<u4"),
    "float16": np.dtype("<u2"),
    "bfloat16": np.dtype("<u2"),
}
"""Weights are moved as bits: numpy has no bfloat16."""
_ALPHA_ROUNDING = 1e-6
"""A card's file keeps alpha in float32: one scale at several ranks comes back a little apart."""
_SAFETENSORS_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}

_EXPRESSED = frozenset(
    (
        "peft_type r lora_alpha alpha_pattern rank_pattern use_rslora base_model_name_or_path "
        "revision target_modules"
    ).split()
)
"""Fields of `LoraConfig` that a card has its own words for."""
_WITHOUT_EFFECT = frozenset(
    (
        "task_type auto_mapping peft_version inference_mode exclude_modules lora_dropout bias "
        "init_lora_weights layers_to_transform layers_pattern megatron_core loftq_config "
        "eva_config corda_config lora_ga_config qalora_group_size"
    ).split()
)
"""Fields that matter while an adapter is trained or made, and no more once it has its weights.

`bias` and `init_lora_weights` do where they have one of the values that `read` takes. The settings
of one initialisation (`corda_config` and the like) are ignored by PEFT under any other.
"""
_BASE_LEFT_ALONE = (None, True, False, "gaussian", "orthogonal", "eva", "mica")
"""Values of `init_lora_weights` under which the base model keeps its weights.

PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA take out of the base what A and B begin with: their adapters
are right on that changed base alone.
"""


@dataclasses.dataclass(frozen=True)
class Adapter:
    """What a PEFT directory holds, in a card's terms."""

    modules: dict[str, cards.ModuleWeights]
    base_model_id: str
    revision: str

    @property
    def target_modules(self) -> tuple[str, ...]:
        """Last dotted parts of the adapted modules, in order of first appearance."""
        return tuple(dict.fromkeys(path.rpartition(".")[2] for path in self.modules))


def export(card: cards.LoRACard, folder: pathlib.Path) -> None:
    """Writes a card as a PEFT adapter; what PEFT computes with it is what the card computes.

    No pattern fields are written, since some readers drop them: modules of a lower rank are filled
    up with zeros to the highest.

    Args:
        card: the card.
        folder: made if it is not there; the two files in it are replaced.

    Raises:
        errors.InvalidInputError: the modules are scaled differently, which needs a pattern.
    """
    rank = card.rank
    scales = [weights.scale for _, weights in card]
    scale = max(scales)
    if not math.isclose(min(scales), scale, rel_tol=_ALPHA_ROUNDING):
        raise errors.InvalidInputError(
            f"card {card.name}: its modules have different scales (alpha / rank), "
            f"{min(scales):g} to {scale:g}; PEFT needs an alpha_pattern for that, which "
            "vLLM and others ignore: merge or extract the card with one scale"
        )
    base = card.manifest.base_model
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.id,
        "revision": base.revision,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": scale * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": sorted(card.target_modules),
    }
    arrays = {name: item for path, weights in card for name, item in _stored(path, weights, rank)}
    specs = {
        # By address: `arrays` keeps the memory alive until all is serialised.
        name: safetensors.TensorSpec(
            dtype=dtype, shape=list(bits.shape), data_ptr=bits.ctypes.data, data_len=bits.nbytes
        )
        for name, (dtype, bits) in arrays.items()
    }
    atomic.write(folder / WEIGHTS_FILE, safetensors.serialize(specs, metadata={"format": "pt"}))
    atomic.write(folder / CONFIG_FILE, (json.dumps(config, indent=2) + "\n").encode())


def read(folder: pathlib.Path) -> Adapter:
    """Reads a PEFT adapter; nothing in it is unpickled or executed.

    Raises:
        errors.NotFoundError: a file is missing.
        errors.CardFormatError: names the feature or field that a card can't hold.
    """
    config = _config(folder / CONFIG_FILE)
    _refuse_what_a_card_has_not(config, folder)
    matrices: dict[str, dict[str, _Matrix]] = {}
    for name, matrix in _tensors(folder / WEIGHTS_FILE):
        match = _KEY.fullmatch(name)
        if match is None:
            raise errors.CardFormatError(
                f"{folder / WEIGHTS_FILE}: tensor {name} is neither lora_A nor lora_B of a linear "
                "layer; a card holds nothing else"
            )
        matrices.setdefault(match[1], {})[match[2]] = matrix
    if not matrices:
        raise errors.CardFormatError(f"{folder / WEIGHTS_FILE}: it holds no tensors")
    modules = {path: _weights(path, pair, config) for path, pair in matrices.items()}
    return Adapter(
        modules, str(config.get("base_model_name_or_path") or ""), str(config.get("revision") or "")
    )


def to_card(adapter: Adapter, manifest: manifests.Manifest) -> cards.LoRACard:
    """A card of the adapter's weights; the manifest's target modules become the adapter's."""
    update = {"target_modules": adapter.target_modules}
    return cards.LoRACard(manifest.model_copy(update=update), adapter.modules)


@dataclasses.dataclass(frozen=True)
class _Matrix:
    dtype: str
    bits: npt.NDArray[Any]
    """Two-dimensional, in the orientation of the file."""


def _stored(
    path: str, weights: cards.ModuleWeights, rank: int
) -> Iterator[tuple[str, tuple[str, npt.NDArray[Any]]]]:
    """Both matrices of a module by PEFT's names, each a dtype and bits, filled up to `rank`."""
    item = _ITEM[weights.dtype]
    for side, buffer, own, theirs in (
        ("A", weights.lora_a, (weights.in_features, weights.rank), (rank, weights.in_features)),
        ("B", weights.lora_b, (weights.rank, weights.out_features), (weights.out_features, rank)),
    ):
        filled = np.zeros(theirs, item)
        transposed = np.frombuffer(buffer, item).reshape(own).T
        filled[: transposed.shape[0], : transposed.shape[1]] = transposed
        yield f"{_PREFIX}{path}.lora_{side}.weight", (weights.dtype, filled)


def _config(path: pathlib.Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise errors.NotFoundError(f"no {CONFIG_FILE} in {path.parent}") from error
    except (OSError, ValueError) as error:
        raise errors.CardFormatError(f"{path}: not readable JSON: {error}") from error
    if not isinstance(found, dict):
        raise errors.CardFormatError(f"{path}: not a JSON object")
    return found


def _refuse_what_a_card_has_not(config: Mapping[str, Any], folder: pathlib.Path) -> None:
    where = folder / CONFIG_FILE
    if config.get("peft_type") != "LORA":
        raise errors.CardFormatError(
            f"{where}: peft_type is {config.get('peft_type')!r}; only LORA can become a card"
        )
    if config.get("bias", "none") != "none":
        raise errors.CardFormatError(f"{where}: bias is {config['bias']!r}; a card has no biases")
    start = config.get("init_lora_weights", True)
    if start not in _BASE_LEFT_ALONE:
        raise errors.CardFormatError(
            f"{where}: init_lora_weights is {start!r}, which changes the base weights, or may; "
            "save it as a plain adapter by PEFT's path_initial_model_for_weight_conversion"
        )
    for field, value in config.items():
        # Whatever a later PEFT adds is refused too, where it is switched on.
        if field not in _EXPRESSED | _WITHOUT_EFFECT and value:
            raise errors.CardFormatError(
                f"{where}: {field} is {value!r}; a card can't hold that feature"
            )


def _tensors(path: pathlib.Path) -> Iterator[tuple[str, _Matrix]]:
    """Name and matrix of every tensor in a safetensors file."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise errors.NotFoundError(f"no {WEIGHTS_FILE} in {path.parent}") from error
    except OSError as error:
        raise errors.CardFormatError(f"{path}: can't be read: {error}") from error
    try:
        found = safetensors.deserialize(data)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise errors.CardFormatError(f"{path}: not a readable safetensors file: {error}") from error
    for name, tensor in found:
        dtype = _SAFETENSORS_DTYPES.get(tensor["dtype"])
        if dtype is None:
            raise errors.CardFormatError(
                f"{path}: tensor {name} has dtype {tensor['dtype']}; a card holds "
                f"{sorted(cards.ITEM_BYTES)}"
            )
        shape = tensor["shape"]
        if len(shape) != 2:
            raise errors.CardFormatError(f"{path}: tensor {name} has shape {shape}, not two sides")
        yield name, _Matrix(dtype, np.frombuffer(tensor["data"], _ITEM[dtype]).reshape(shape))


def _weights(
    path: str, pair: Mapping[str, _Matrix], config: Mapping[str, Any]
) -> cards.ModuleWeights:
    missing = {"A", "B"} - set(pair)
    if missing:
        raise errors.CardFormatError(f"module {path}: lora_{missing.pop()} is missing")
    lora_a, lora_b = pair["A"], pair["B"]
    rank, in_features = lora_a.bits.shape
    out_features, rank_b = lora_b.bits.shape
    if rank != rank_b or lora_a.dtype != lora_b.dtype:
        raise errors.CardFormatError(
            f"module {path}: lora_A is {lora_a.dtype} of shape {lora_a.bits.shape}, lora_B "
            f"{lora_b.dtype} of {lora_b.bits.shape}; they must share rank and dtype"
        )
    return cards.ModuleWeights(
        rank=rank,
        in_features=in_features,
        out_features=out_features,
        alpha=_alpha(path, rank, config),
        dtype=lora_a.dtype,
        lora_a=_buffer(lora_a),
        lora_b=_buffer(lora_b),
    )


def _alpha(path: str, rank: int, config: Mapping[str, Any]) -> float:
    """Alpha in a card's sense, where the scale is always alpha / rank."""
    alpha = config.get("lora_alpha", 8)
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        # The rule of PEFT: the pattern is the end of the path, from a dot on.
        if re.fullmatch(rf"(?:.*\.)?(?:{pattern})", path):
            alpha = value
            break
    if not isinstance(alpha, int | float):
        raise errors.CardFormatError(f"module {path}: alpha {alpha!r} is not a number")
    # Rank-stabilised LoRA (Kalajdzievski 2023) scales by alpha / sqrt(rank).
    return float(alpha) * (math.sqrt(rank) if config.get("use_rslora") else 1.0)


def _buffer(matrix: _Matrix) -> pa.Buffer:
    return pa.py_buffer(np.ascontiguousarray(matrix.bits.T).tobytes())
