"""`LoRACard`: a skill as data, checked on construction.

Knows neither torch nor files: weights are buffers, so that the card store can hold cards without
a machine-learning library. `shared.lora.tensors` gives the torch views.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from shared import errors
from shared.cards import manifest as manifests

ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of one weight for every dtype that a card may hold."""
_EXPONENTS: dict[str, tuple[type[np.unsignedinteger[Any]], int]] = {
    "float32": (np.uint32, 0x7F80_0000),
    "float16": (np.uint16, 0x7C00),
    "bfloat16": (np.uint16, 0x7F80),
}
"""Bits of the exponent."""


@dataclasses.dataclass(frozen=True)
class ModuleWeights:
    """LoRA weights of one linear layer: `y += (x @ A @ B) * alpha / rank`."""

    rank: int
    in_features: int
    out_features: int
    alpha: float
    dtype: str
    """float32, float16 or bfloat16."""
    lora_a: pa.Buffer
    """(in_features, rank), row-major."""
    lora_b: pa.Buffer
    """(rank, out_features), row-major."""

    @property
    def scale(self) -> float:
        """What the product of the two matrices is multiplied by."""
        return self.alpha / self.rank

    @property
    def size_bytes(self) -> int:
        """Bytes of both matrices."""
        return int(self.lora_a.size + self.lora_b.size)


class LoRACard:
    """Weights of one skill with its manifest."""

    def __init__(self, manifest: manifests.Manifest, modules: Mapping[str, ModuleWeights]) -> None:
        """Checks every field.

        Args:
            manifest: what the card says of itself.
            modules: full module path in the base model to its weights; at least one.

        Raises:
            errors.CardFormatError: names the module and field that is wrong.
        """
        if not modules:
            raise errors.CardFormatError(f"card {manifest.name}: it adapts no module")
        for path, weights in modules.items():
            _check(path, weights)
            if path.rpartition(".")[2] not in manifest.target_modules:
                raise errors.CardFormatError(
                    f"module {path}: its kind is not among the manifest's target_modules "
                    f"{list(manifest.target_modules)}"
                )
        _check_finite(modules)
        self.manifest = manifest
        self.modules = dict(modules)

    @property
    def name(self) -> str:
        """The card's name, without version or digest."""
        return self.manifest.name

    @property
    def rank(self) -> int:
        """The highest rank among its modules."""
        return max(weights.rank for weights in self.modules.values())

    @property
    def alpha(self) -> float:
        """The highest alpha among its modules."""
        return max(weights.alpha for weights in self.modules.values())

    @property
    def target_modules(self) -> tuple[str, ...]:
        """Kinds of layer that the card adapts, such as `q_proj`."""
        return self.manifest.target_modules

    @property
    def weights_a(self) -> dict[str, pa.Buffer]:
        """Module path to matrix A, (in_features, rank)."""
        return {path: weights.lora_a for path, weights in self.modules.items()}

    @property
    def weights_b(self) -> dict[str, pa.Buffer]:
        """Module path to matrix B, (rank, out_features)."""
        return {path: weights.lora_b for path, weights in self.modules.items()}

    @property
    def size_bytes(self) -> int:
        """Bytes of all weights."""
        return sum(weights.size_bytes for weights in self.modules.values())

    def with_manifest(self, manifest: manifests.Manifest) -> LoRACard:
        """The same weights under another manifest."""
        return LoRACard(manifest, self.modules)

    def __iter__(self) -> Iterator[tuple[str, ModuleWeights]]:
        """Module paths with their weights, in the order of the file."""
        return iter(self.modules.items())


def _check(path: str, weights: ModuleWeights) -> None:
    def fail(field: str, problem: str) -> errors.CardFormatError:
        return errors.CardFormatError(f"module {path}: field {field}: {problem}")

    if not path or len(path) > 512:
        raise fail("module", "must have 1 to 512 characters")
    item = ITEM_BYTES.get(weights.dtype)
    if item is None:
        raise fail("dtype", f"{weights.dtype!r} is not one of {sorted(ITEM_BYTES)}")
    limit = min(weights.in_features, weights.out_features)
    if weights.in_features < 1 or weights.out_features < 1:
        raise fail("in_features, out_features", "must be positive")
    if not 1 <= weights.rank <= limit:
        raise fail("rank", f"{weights.rank} is not between 1 and {limit}")
    if not (np.isfinite(weights.alpha) and weights.alpha > 0):
        raise fail("alpha", f"{weights.alpha} is not a positive number")
    for field, buffer, rows, columns in (
        ("lora_A", weights.lora_a, weights.in_features, weights.rank),
        ("lora_B", weights.lora_b, weights.rank, weights.out_features),
    ):
        if buffer.size != rows * columns * item:
            raise fail(
                field,
                f"has {buffer.size} bytes; a {rows} x {columns} matrix of {weights.dtype} "
                f"has {rows * columns * item}",
            )


def _check_finite(modules: Mapping[str, ModuleWeights]) -> None:
    for field in ("lora_a", "lora_b"):
        buffers = [getattr(weights, field) for weights in modules.values()]
        dtypes = {weights.dtype for weights in modules.values()}
        whole = consecutive(buffers) if len(dtypes) == 1 else None
        if whole is not None and _all_finite(whole, dtypes.pop()):
            continue
        for path, weights in modules.items():
            if not _all_finite(getattr(weights, field), weights.dtype):
                column = field.replace("_a", "_A").replace("_b", "_B")
                raise errors.CardFormatError(
                    f"module {path}: field {column}: holds NaN or infinite values"
                )


def consecutive(buffers: Sequence[pa.Buffer]) -> pa.Buffer | None:
    """One buffer over all where each begins where the one before it ends; None elsewhere.

    The matrices of a card that was read from its file lie like that, side by side.
    """
    for before, after in itertools.pairwise(buffers):
        if before.address + before.size != after.address:
            return None
    size = sum(buffer.size for buffer in buffers)
    return pa.foreign_buffer(buffers[0].address, size, base=list(buffers))


def _all_finite(buffer: pa.Buffer, dtype: str) -> bool:
    """An exponent of all ones means infinity or NaN; numpy has no bfloat16, so bits it is."""
    kind, exponent = _EXPONENTS[dtype]
    bits = np.frombuffer(buffer, dtype=kind)
    return not bits.size or int((bits & exponent).max()) != exponent
