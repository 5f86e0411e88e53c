"""`LoRACard`: a skill as data, checked on construction.

Knows neither torch nor files: weights are buffers, so that the card store can hold cards without
a machine-learning library. `shared.lora.tensors` gives the torch views.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from shared import errors
from shared.cards import manifest as manifests

ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of one weight for every dtype that a card may hold."""
MOST_MODULES = 16_384
"""Modules that one card adapts at most."""
LONGEST_PATH = 512
"""Characters of a module's path."""
_AS_INTEGERS: dict[str, tuple[type[Any], type[Any], int]] = {
    "float32": (np.int32, np.uint32, 0x7F80_0000),
    "float16": (np.int16, np.uint16, 0x7C00),
    "bfloat16": (np.int16, np.uint16, 0x7F80),
}
"""Signed and unsigned kind of the same width, and the bits of infinity."""
_PIECE = 1 << 17
_KINDS_NAMED = 20


class ModuleWeights(NamedTuple):
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
        if len(modules) > MOST_MODULES:
            raise errors.CardFormatError(
                f"card {manifest.name}: it adapts {len(modules)} modules; at most {MOST_MODULES}"
            )
        kinds = frozenset(manifest.target_modules)
        for path, weights in modules.items():
            _check(path, weights)
            if path.rpartition(".")[2] not in kinds:
                raise errors.CardFormatError(
                    f"module {path}: its kind is not among the manifest's target_modules "
                    f"{list(manifest.target_modules[:_KINDS_NAMED])}"
                )
        self.manifest = manifest
        self.modules = dict(modules)
        dtypes = {weights.dtype for weights in modules.values()}
        is_uniform = len(dtypes) == 1
        self.side_a = _consecutive(self.weights_a) if is_uniform else None
        """One buffer over all matrices A, where they follow one another as in a card's file."""
        self.side_b = _consecutive(self.weights_b) if is_uniform else None
        """The same for the matrices B."""
        self._check_finite()

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

    @property
    def shapes(self) -> tuple[tuple[str, int, int, int], ...]:
        """Path, rank, in_features and out_features of every module, in the order of the file."""
        return tuple(
            (path, one.rank, one.in_features, one.out_features)
            for path, one in self.modules.items()
        )

    def with_manifest(self, manifest: manifests.Manifest) -> LoRACard:
        """The same weights under another manifest."""
        return LoRACard(manifest, self.modules)

    def _check_finite(self) -> None:
        for column, whole in (("lora_A", self.side_a), ("lora_B", self.side_b)):
            first = next(iter(self.modules.values()))
            if whole is not None and _all_finite(whole, first.dtype):
                continue
            for path, weights in self.modules.items():
                buffer = weights.lora_a if column == "lora_A" else weights.lora_b
                if not _all_finite(buffer, weights.dtype):
                    raise errors.CardFormatError(
                        f"module {path}: field {column}: holds NaN or infinite values"
                    )

    def __iter__(self) -> Iterator[tuple[str, ModuleWeights]]:
        """Module paths with their weights, in the order of the file."""
        return iter(self.modules.items())


def _check(path: str, weights: ModuleWeights) -> None:
    """A card has hundreds of modules: only one that is not sound is looked at closely."""
    rank, inner, outer, alpha, dtype, lora_a, lora_b = weights
    item = ITEM_BYTES.get(dtype, 0)
    is_sound = (
        0 < len(path) <= LONGEST_PATH
        and item
        and 0 < rank <= min(inner, outer)
        and 0 < alpha < math.inf
        and lora_a.size == inner * rank * item
        and lora_b.size == rank * outer * item
    )
    if not is_sound:
        raise _problem(path, weights)


def _problem(path: str, weights: ModuleWeights) -> errors.CardFormatError:
    """The first thing that is wrong with a module."""

    def fail(field: str, problem: str) -> errors.CardFormatError:
        return errors.CardFormatError(f"module {path[:LONGEST_PATH]}: field {field}: {problem}")

    if not 0 < len(path) <= LONGEST_PATH:
        return fail("module", f"must have 1 to {LONGEST_PATH} characters")
    item = ITEM_BYTES.get(weights.dtype)
    if item is None:
        return fail("dtype", f"{weights.dtype[:20]!r} is not one of {sorted(ITEM_BYTES)}")
    if weights.in_features < 1 or weights.out_features < 1:
        return fail("in_features, out_features", "must be positive")
    limit = min(weights.in_features, weights.out_features)
    if not 1 <= weights.rank <= limit:
        return fail("rank", f"{weights.rank} is not between 1 and {limit}")
    if not 0 < weights.alpha < math.inf:
        return fail("alpha", f"{weights.alpha} is not a positive number")
    is_a = weights.lora_a.size != weights.in_features * weights.rank * item
    field, buffer, rows, columns = (
        ("lora_A", weights.lora_a, weights.in_features, weights.rank)
        if is_a
        else ("lora_B", weights.lora_b, weights.rank, weights.out_features)
    )
    return fail(
        field,
        f"has {buffer.size} bytes; a {rows} x {columns} matrix of {weights.dtype} "
        f"has {rows * columns * item}",
    )


def _consecutive(matrices: Mapping[str, pa.Buffer]) -> pa.Buffer | None:
    """One buffer over all where each begins where the one before it ends; None elsewhere."""
    buffers = list(matrices.values())
    start = end = buffers[0].address
    for buffer in buffers:
        if buffer.address != end:
            return None
        end += buffer.size
    return pa.foreign_buffer(start, end - start, base=buffers)


def _all_finite(buffer: pa.Buffer, dtype: str) -> bool:
    """Whether no value is infinite or NaN; as integers those lie above all others of their sign."""
    values = np.frombuffer(buffer, np.float32) if dtype == "float32" else None
    if values is not None and values.flags.aligned:  # np.dot would copy what is not.
        with np.errstate(all="ignore"):
            squares = float(np.dot(values, values))
        if math.isfinite(squares):  # In one pass; those of huge weights need the closer look.
            return True
    signed, unsigned, infinity = _AS_INTEGERS[dtype]
    sign = np.iinfo(signed).min
    positive, negative = np.frombuffer(buffer, signed), np.frombuffer(buffer, unsigned)
    # Piece by piece, so that the second look finds them in the processor's cache.
    return all(
        int(positive[at : at + _PIECE].max()) < infinity
        and int(negative[at : at + _PIECE].max()) < infinity - sign
        for at in range(0, len(positive), _PIECE)
    )
