"""Where resident cards keep their weights: one contiguous piece of memory a card, ready-made views.

A slot is made for a layout, the shapes of a card's modules in the order of its file. Cards of one
recipe share a layout, so that a slot whose card has left takes the next one without an allocation:
loading is two copies, one of all A matrices and one of all B.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Literal

import torch

from shared.cards import card as cards
from shared.lora import linear, rows, tensors

_SPARE_SLOTS = 2
"""Free slots that are kept: a swap needs one beside the card that still serves."""


@dataclasses.dataclass(frozen=True)
class Part:
    """One module of a card."""

    layer: int
    """Number of the model's layer that it adapts."""
    rank: int
    in_features: int
    out_features: int


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where each module's matrices lie in a slot: first every A, then every B."""

    parts: tuple[Part, ...]

    @functools.cached_property
    def starts_a(self) -> tuple[int, ...]:
        """Where each part's A begins, in elements, and where the last one ends."""
        sizes = (part.in_features * part.rank for part in self.parts)
        return tuple(itertools.accumulate(sizes, initial=0))

    @functools.cached_property
    def starts_b(self) -> tuple[int, ...]:
        """Where each part's B begins, and where the last one ends: the size of the slot."""
        sizes = (part.rank * part.out_features for part in self.parts)
        return tuple(itertools.accumulate(sizes, initial=self.starts_a[-1]))

    @property
    def size(self) -> int:
        """Elements of a slot."""
        return self.starts_b[-1]

    def matrices(self, flat: torch.Tensor, at: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Views of one part's matrices.

        Args:
            flat: (..., size).
            at: number of the part.

        Returns:
            A, (..., in_features, rank), and B, (..., rank, out_features).
        """
        part = self.parts[at]
        lora_a = flat[..., self.starts_a[at] : self.starts_a[at + 1]]
        lora_b = flat[..., self.starts_b[at] : self.starts_b[at + 1]]
        return (
            lora_a.unflatten(-1, (part.in_features, part.rank)),
            lora_b.unflatten(-1, (part.rank, part.out_features)),
        )


class Slot:
    """The weights of one resident card."""

    def __init__(
        self, layout: Layout, layers: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Allocates; `fill` brings a card in.

        Args:
            layout: of the cards that will use it.
            layers: of the whole model.
            dtype: of the model's weights.
            device: of the model's weights.
        """
        self.layout = layout
        self.flat = torch.empty(layout.size, dtype=dtype, device=device)
        self.scale: float | None = None
        """Of every module, where they all have the same."""
        self._parts: list[linear.Adapter] = []
        self.adapters: list[linear.Adapter | None] = [None] * layers
        for at, part in enumerate(layout.parts):
            adapter = linear.Adapter(*layout.matrices(self.flat, at), scale=1.0)
            self._parts.append(adapter)
            self.adapters[part.layer] = adapter

    @property
    def size_bytes(self) -> int:
        """Memory of the weights."""
        return self.flat.nbytes

    def fill(self, card: cards.LoRACard, paths: Sequence[str]) -> None:
        """Copies a card's weights in: in two pieces where they lie so, as in a card's file.

        Args:
            card: the card.
            paths: its modules that are in the layout, in that order.
        """
        weights = [card.modules[path] for path in paths]
        split = self.layout.starts_a[-1]
        if card.side_a is not None and card.side_b is not None and len(paths) == len(card.modules):
            tensors.copy(
                self.flat, [(side, weights[0].dtype) for side in (card.side_a, card.side_b)]
            )
        else:
            tensors.copy(self.flat[:split], [(one.lora_a, one.dtype) for one in weights])
            tensors.copy(self.flat[split:], [(one.lora_b, one.dtype) for one in weights])
        scales = [one.scale for one in weights]
        for adapter, scale in zip(self._parts, scales, strict=True):
            adapter.scale = scale
        self.scale = scales[0] if len(set(scales)) == 1 else None


class SlotPool:
    """Slots of one model; the latest that became free are used again."""

    def __init__(self, layers: int, dtype: torch.dtype, device: torch.device) -> None:
        """Begins empty.

        Args:
            layers: of the model.
            dtype: of its weights.
            device: of its weights.
        """
        self._layers, self._dtype, self._device = layers, dtype, device
        self._free: collections.deque[Slot] = collections.deque(maxlen=_SPARE_SLOTS)

    def take(self, layout: Layout) -> Slot:
        """A slot for a card of that layout."""
        for slot in self._free:
            if slot.layout is layout or slot.layout == layout:
                self._free.remove(slot)
                return slot
        return Slot(layout, self._layers, self._dtype, self._device)

    def give_back(self, slot: Slot) -> None:
        """Keeps a slot for the next card; the one that was free longest goes where it must."""
        self._free.append(slot)


class Mixer:
    """Puts the weights of different cards side by side, a row of a batch each."""

    def __init__(self, layers: int, dtype: torch.dtype, device: torch.device) -> None:
        """Begins without rows.

        Args:
            layers: of the model.
            dtype: of its weights.
            device: of its weights.
        """
        self._layers, self._dtype, self._device = layers, dtype, device
        self._rows: list[Slot | Literal["stale"] | None] = []
        """Whose weights stand in each row: a row that stays is not copied again."""
        self.clear()

    def clear(self) -> None:
        """Lets go of all rows."""
        self._resize(Layout(()), 0)

    def compose(self, slots: Sequence[Slot | None]) -> rows.EachItsOwn:
        """What a batch adds whose rows use these cards; None is the bare model.

        The result is good until the next call.
        """
        layout = _common([slot.layout for slot in slots if slot is not None])
        if layout != self._layout or len(slots) > len(self._flat_B_S):
            self._resize(layout, len(slots))
        for row, slot in enumerate(slots):
            if row >= len(self._rows) or self._rows[row] is not slot:
                self._put(row, slot)
        return rows.EachItsOwn(len(slots), self._stacks(len(slots)))

    def forget(self, slot: Slot) -> None:
        """To be called before a slot gets other weights: its rows are stale then."""
        self._rows = ["stale" if one is slot else one for one in self._rows]

    def _resize(self, layout: Layout, count: int) -> None:
        # First what may fail: then nothing has changed.
        self._flat_B_S = torch.empty(count, layout.size, dtype=self._dtype, device=self._device)
        self._layout, self._rows = layout, []

    def _put(self, row: int, slot: Slot | None) -> None:
        target = self._flat_B_S[row]
        if slot is None:
            target.zero_()
        elif slot.layout == self._layout and slot.scale is not None:
            split = self._layout.starts_a[-1]
            target[:split] = slot.flat[:split]
            torch.mul(slot.flat[split:], slot.scale, out=target[split:])
        else:
            target.zero_()
            self._put_parts(target, slot.adapters)
        self._rows[row : row + 1] = [slot]

    def _put_parts(self, target: torch.Tensor, adapters: rows.Adapters) -> None:
        for at, part in enumerate(self._layout.parts):
            adapter = adapters[part.layer]
            if adapter is not None:
                lora_a, scaled_b = self._layout.matrices(target, at)
                lora_a[:, : adapter.rank] = adapter.lora_a
                scaled_b[: adapter.rank] = adapter.lora_b * adapter.scale

    def _stacks(self, count: int) -> list[rows.Stack | None]:
        flat_B_S = self._flat_B_S[:count]
        found: list[rows.Stack | None] = [None] * self._layers
        for at, part in enumerate(self._layout.parts):
            found[part.layer] = rows.Stack(*self._layout.matrices(flat_B_S, at))
        return found


def _common(layouts: Sequence[Layout]) -> Layout:
    """The layout that holds cards of all these: every module of any, of the highest rank."""
    distinct = list(dict.fromkeys(layouts))
    if len(distinct) == 1:
        return distinct[0]
    highest: dict[int, Part] = {}
    for part in (part for layout in distinct for part in layout.parts):
        if part.layer not in highest or part.rank > highest[part.layer].rank:
            highest[part.layer] = part
    return Layout(tuple(highest[layer] for layer in sorted(highest)))
