"""`Stack`: the five layers as one agent sees them at one moment, and the card that they make.

Frozen: the layers hand out new tensors with every change (copy on write), so that a stack keeps
what it was made of, and a generation over it is a function of its input. As a card it is served,
swapped, batched and kept within limits like any other. Knows nothing about models or requests.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import pyarrow as pa
import torch

from shared import errors
from shared.cards import card as cards
from shared.cards import manifest as manifests
from shared.hierarchy import levels, weights
from shared.lora import lowrank, tensors

_MADE_AT = "1970-01-01T00:00:00+00:00"
"""In every manifest: equal stacks are equal cards."""


@dataclasses.dataclass(frozen=True)
class Stack:
    """Some or all layers, whose sum is one adapter per module."""

    version: int
    """Of its agent on its node: grows with every change of any layer."""
    layers: Mapping[levels.Level, weights.Weights]
    """A module that only some layers adapt is adapted by those."""

    @property
    def parts(self) -> list[weights.Weights]:
        """The layers, slowest first."""
        return [self.layers[level] for level in levels.LEVELS if level in self.layers]

    def composed(self) -> weights.Weights:
        """One adapter per module: A's side by side, B's on top of one another; exact."""
        parts = self.parts
        return weights.summed(parts, [1.0] * len(parts))

    def to_card(
        self, name: str, base: manifests.BaseModelReference, dtype: str = "float32"
    ) -> cards.LoRACard:
        """The stack as a card whose scale is 1.

        Where the ranks add up to more than a module has, the same matrix has exact smaller factors
        (but for rounding).

        Args:
            name: of the card.
            base: whose modules the paths are.
            dtype: of the card's weights, best the model's own: float32, float16 or bfloat16.

        Raises:
            errors.InvalidInputError: there is no module, or the layers give one different shapes.
            errors.CardFormatError: a value is not finite.
        """
        by_path = self._by_path()
        if not by_path:
            raise errors.InvalidInputError(f"stack {name}@{self.version} adapts no module")
        found = {path: _factors(path, of_layers) for path, of_layers in by_path.items()}
        manifest = manifests.Manifest(
            name=name,
            version=f"1.0.{self.version}",
            base_model=base,
            target_modules=tuple(dict.fromkeys(path.rpartition(".")[2] for path in found)),
            domain="hierarchy",
            description=f"layers {', '.join(self.layers)} at version {self.version}",
            created_at=_MADE_AT,
        )
        return cards.LoRACard(manifest, _modules(found, dtype))

    def _by_path(self) -> dict[str, list[weights.Factors]]:
        parts = self.parts
        paths = dict.fromkeys(path for part in parts for path in part)
        return {path: [part[path] for part in parts if path in part] for path in paths}


def _factors(path: str, of_layers: Sequence[weights.Factors]) -> list[weights.Factors]:
    """What lies side by side in one module's factors: the layers, or their sum where they fit not.

    They are put side by side in the card's own memory, not before.
    """
    shapes = {(one.a.shape[0], one.b.shape[1]) for one in of_layers}
    if len(shapes) > 1:
        raise errors.InvalidInputError(f"module {path}: the layers give it shapes {sorted(shapes)}")
    (shape,) = shapes
    if sum(one.rank for one in of_layers) <= min(shape):
        return list(of_layers)
    side_by_side = torch.cat([one.a for one in of_layers], dim=1)
    stacked = torch.cat([one.b for one in of_layers], dim=0)
    fitting = lowrank.of_product(side_by_side, stacked, min(shape))
    return [weights.Factors(fitting.lora_a, fitting.lora_b)]


def _modules(
    found: Mapping[str, Sequence[weights.Factors]], dtype: str
) -> dict[str, cards.ModuleWeights]:
    """All A one behind the other, then all B: such a card comes into a slot in two copies."""
    modules = {}
    sizes = {path: _Size.of(parts) for path, parts in found.items()}
    flat_a, all_a = _allocated(sum(one.inner * one.rank for one in sizes.values()), dtype)
    flat_b, all_b = _allocated(sum(one.rank * one.outer for one in sizes.values()), dtype)
    at_a = at_b = 0
    for path, parts in found.items():
        size, rank_from = sizes[path], 0
        to_a, to_b = at_a + size.inner * size.rank, at_b + size.rank * size.outer
        matrix_a = flat_a[at_a:to_a].view(size.inner, size.rank)
        matrix_b = flat_b[at_b:to_b].view(size.rank, size.outer)
        for part in parts:
            matrix_a[:, rank_from : rank_from + part.rank] = part.a
            matrix_b[rank_from : rank_from + part.rank] = part.b
            rank_from += part.rank
        item = flat_a.itemsize
        modules[path] = cards.ModuleWeights(
            rank=size.rank,
            in_features=size.inner,
            out_features=size.outer,
            alpha=float(size.rank),
            dtype=dtype,
            lora_a=all_a.slice(at_a * item, (to_a - at_a) * item),
            lora_b=all_b.slice(at_b * item, (to_b - at_b) * item),
        )
        at_a, at_b = to_a, to_b
    return modules


@dataclasses.dataclass(frozen=True)
class _Size:
    inner: int
    rank: int
    outer: int

    @staticmethod
    def of(parts: Sequence[weights.Factors]) -> _Size:
        rank = sum(part.rank for part in parts)
        return _Size(parts[0].a.shape[0], rank, parts[0].b.shape[1])


def _allocated(elements: int, dtype: str) -> tuple[torch.Tensor, pa.Buffer]:
    """A tensor, and the buffer of its memory."""
    flat = torch.empty(elements, dtype=tensors.DTYPES[dtype])
    return flat, pa.py_buffer(flat.view(torch.uint8).numpy())
