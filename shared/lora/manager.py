"""`LoRAManager`: brings cards into a model and out of it again, without a trace.

It puts a `LoRALinear` in the place of a layer when the first card needs it, and the very same
`nn.Linear` back when the last card leaves. Which card answers, or which for each row of a batch, is
said once for all layers. One thread at a time may call it; the engine takes care of that.
"""

from __future__ import annotations

import dataclasses
import logging
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import torch

from shared import errors
from shared.cards import card as cards
from shared.cards import format as formats
from shared.lora import linear, rows, slots

_KEPT_FITS = 64
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Fit:
    """How cards of one recipe fit the model."""

    paths: tuple[str, ...]
    """Of the layers."""
    names: tuple[str, ...]
    """Of the card's modules, in the same order."""
    layout: slots.Layout


@dataclasses.dataclass(frozen=True)
class _Resident:
    """A card in the model."""

    adapters: rows.Adapters
    one_card: rows.OneCard
    paths: tuple[str, ...]
    slot: slots.Slot | None
    """None for one that is being trained: its matrices are parameters of their own."""


class LoRAManager:
    """Cards of one model."""

    def __init__(self, model: torch.nn.Module, base_fingerprint: str | None = None) -> None:
        """Takes the model to adapt.

        Args:
            model: any torch model; it is changed in place while cards are applied.
            base_fingerprint: cards of another base are refused; None accepts any whose shapes fit.
        """
        self._model = model
        self._fingerprint = base_fingerprint
        first = next(model.parameters())
        self._dtype, device = first.dtype, first.device
        self._linears = {
            path: module
            for path, module in model.named_modules()
            if isinstance(module, torch.nn.Linear)
        }
        self._places = {path: _place(model, path) for path in self._linears}
        """The module that holds a layer, and the layer's name there."""
        self._numbers = {path: number for number, path in enumerate(self._linears)}
        self._selection = linear.Selection()
        self._wrappers: dict[str, linear.LoRALinear] = {}
        self._users: dict[str, int] = {}
        """How many resident cards adapt a layer, by path; layers without one are bare."""
        self._fits: dict[tuple[tuple[str, int, int, int], ...], _Fit] = {}
        """By the shapes of a card."""
        self._residents: dict[str, _Resident] = {}
        self._pool = slots.SlotPool(len(self._linears), self._dtype, device)
        self._mixer = slots.Mixer(len(self._linears), self._dtype, device)
        self._active: str | None = None
        self._row_keys: list[str | None] | None = None
        """What `activate_rows` was last asked for, while that holds."""

    def load_card(self, path: pathlib.Path, expected_digest: str | None = None) -> cards.LoRACard:
        """Reads a card from its file with every check of `LoRAFormat.load`."""
        return formats.LoRAFormat.load(path, expected_digest)

    def apply_card(self, card: cards.LoRACard, key: str | None = None) -> None:
        """Makes a card resident; `activate` makes it answer.

        A module that the model does not have is skipped with a warning; the others go on. A card
        that is already applied is left as it is, with a warning.

        Args:
            card: the card.
            key: what to call it here; by default its name.

        Raises:
            errors.BaseModelMismatchError: the card belongs to another base model.
            errors.InvalidInputError: a shape does not fit. Either way nothing was touched.
        """
        key = key or card.name
        if key in self._residents:
            _log.warning("card %s is already applied; nothing changed", key)
            return
        self._check_base(card)
        fit = self._fit(card)
        slot = self._pool.take(fit.layout)
        slot.fill(card, fit.names)
        self._enter(key, slot.adapters, fit.paths, slot)

    def rewrite_card(self, card: cards.LoRACard, key: str) -> None:
        """Puts other weights of the same shapes in the place of a resident card's.

        Whatever answers with it goes on with the new weights at its next token.

        Raises:
            errors.NotFoundError: the card is not resident.
            errors.InvalidInputError: the shapes differ; nothing was touched.
        """
        slot, fit = self._slot(key), self._fit(card)
        if fit.layout != slot.layout:
            raise errors.InvalidInputError(f"card {key}: the new weights have other shapes")
        slot.fill(card, fit.names)
        self._mixer.forget(slot)
        if self._row_keys is not None:
            self.activate(None)  # Rows that were put side by side are made again.

    def add_trainable(
        self,
        key: str,
        paths: Iterable[str],
        rank: int | Mapping[str, int],
        scale: float,
        generator: torch.Generator,
    ) -> dict[str, linear.Adapter]:
        """Adds fresh trainable adapters to the given layers and returns them by path.

        Args:
            key: what to call them here.
            paths: of the layers.
            rank: of all, or of each by its path.
            scale: alpha / rank, the same for all whatever their ranks.
            generator: source of the matrices A, float32.

        Raises:
            errors.InvalidInputError: a layer has no rank, or one that does not fit it. Nothing was
                touched.
        """
        made = {path: self._fresh(path, rank, scale, generator) for path in paths}
        adapters = [made.get(path) for path in self._linears]
        self._enter(key, adapters, tuple(made), None)
        return made

    def activate(self, key: str | None) -> None:
        """Makes one resident card answer, or with None the bare base.

        Raises:
            errors.NotFoundError: the card is not resident.
        """
        self._selection.rows = None if key is None else self._resident(key).one_card
        self._active, self._row_keys = key, None

    def activate_rows(self, keys: Sequence[str | None]) -> None:
        """Makes a card answer each row of the batches to come; None is the bare base.

        Args:
            keys: of the rows, in order; at least one.

        Raises:
            errors.NotFoundError: a card is not resident; nothing has changed.
            errors.InvalidInputError: there are no rows, or a card of several is being trained.
        """
        if keys == self._row_keys:
            return
        if not keys:
            raise errors.InvalidInputError("a batch has at least one row")
        if len(set(keys)) == 1:
            self.activate(keys[0])
            return
        chosen = [None if key is None else self._slot(key) for key in keys]
        self._selection.rows = self._mixer.compose(chosen)
        self._active, self._row_keys = None, list(keys)

    def remove_card(self, key: str) -> None:
        """Takes a card out; silent if it is not there.

        Layers that no card needs any more become the very `nn.Linear` objects they were.
        """
        resident = self._residents.pop(key, None)
        if resident is None:
            return
        for path in resident.paths:
            self._users[path] -= 1
            if not self._users[path]:
                self._put(path, self._linears[path])
        if self._active == key or isinstance(self._selection.rows, rows.EachItsOwn):
            self.activate(None)
        if resident.slot is not None:
            self._mixer.forget(resident.slot)
            self._pool.give_back(resident.slot)
        if not self._residents:
            self._mixer.clear()

    def list_cards(self) -> list[str]:
        """Keys of the resident cards, in the order of their coming."""
        return list(self._residents)

    def size_bytes(self, key: str) -> int:
        """Memory that a resident card's weights hold.

        Raises:
            errors.NotFoundError: the card is not resident.
        """
        resident = self._resident(key)
        if resident.slot is not None:
            return resident.slot.size_bytes
        return sum(
            adapter.lora_a.nbytes + adapter.lora_b.nbytes
            for adapter in resident.adapters
            if adapter is not None
        )

    def cost_bytes(self, card: cards.LoRACard) -> int:
        """Memory that a card's weights would hold here."""
        elements = sum(one.rank * (one.in_features + one.out_features) for _, one in card)
        return elements * self._dtype.itemsize

    @property
    def active(self) -> str | None:
        """Key of the card that answers all rows; None for the bare base and for mixed rows."""
        return self._active

    def target_paths(self, kinds: Iterable[str]) -> list[str]:
        """Paths of the layers whose name ends in one of the kinds, such as `q_proj`.

        Raises:
            errors.NotFoundError: a kind that the model does not have.
        """
        wanted = list(kinds)
        found = [path for path in self._linears if path.rpartition(".")[2] in wanted]
        missing = set(wanted) - {path.rpartition(".")[2] for path in found}
        if missing:
            known = sorted({path.rpartition(".")[2] for path in self._linears})
            raise errors.NotFoundError(
                f"the base model has no layers called {sorted(missing)}; it has {known}"
            )
        return found

    def layer(self, path: str) -> torch.nn.Linear:
        """The bare layer of a path, whether a card adapts it or not.

        Raises:
            errors.NotFoundError: the model has no such layer.
        """
        if path not in self._linears:
            raise errors.NotFoundError(f"the base model has no layer {path}")
        return self._linears[path]

    def _resident(self, key: str) -> _Resident:
        resident = self._residents.get(key)
        if resident is None:
            raise errors.NotFoundError(f"card {key} is not resident on this node")
        return resident

    def _fresh(
        self, path: str, rank: int | Mapping[str, int], scale: float, generator: torch.Generator
    ) -> linear.Adapter:
        layer = self._linears[path]
        own = rank if isinstance(rank, int) else rank.get(path, 0)
        try:
            return linear.fresh(layer.in_features, layer.out_features, own, scale * own, generator)
        except errors.InvalidInputError as error:
            raise errors.InvalidInputError(f"layer {path}: {error}") from error

    def _slot(self, key: str) -> slots.Slot:
        slot = self._resident(key).slot
        if slot is None:
            raise errors.InvalidInputError(f"card {key} is being trained; it answers alone")
        return slot

    def _enter(
        self,
        key: str,
        adapters: rows.Adapters,
        paths: tuple[str, ...],
        slot: slots.Slot | None,
    ) -> None:
        for path in paths:
            if not self._users.get(path):
                self._put(path, self._wrapper(path))
            self._users[path] = self._users.get(path, 0) + 1
        self._residents[key] = _Resident(adapters, rows.OneCard(adapters), paths, slot)

    def _wrapper(self, path: str) -> linear.LoRALinear:
        if path not in self._wrappers:
            self._wrappers[path] = linear.LoRALinear(
                self._linears[path], self._selection, self._numbers[path]
            )
        return self._wrappers[path]

    def _check_base(self, card: cards.LoRACard) -> None:
        made_for = card.manifest.base_model
        if self._fingerprint is not None and made_for.fingerprint != self._fingerprint:
            raise errors.BaseModelMismatchError(
                f"card {card.name} was made for base model {made_for.id} "
                f"({made_for.fingerprint[:12]}), this node runs {self._fingerprint[:12]}; "
                "train it again for this base"
            )

    def _fit(self, card: cards.LoRACard) -> _Fit:
        """Where the card's modules belong; the cards of one recipe all fit in one way."""
        shapes = card.shapes
        fit = self._fits.get(shapes)
        if fit is None:
            found = self._found(card)
            parts = tuple(self._part(path, card.modules[name]) for path, name in found.items())
            fit = _Fit(tuple(found), tuple(found.values()), slots.Layout(parts))
            if len(found) == len(card.modules):  # What is skipped is to be warned of each time.
                if len(self._fits) >= _KEPT_FITS:
                    self._fits.clear()
                self._fits[shapes] = fit
        return fit

    def _part(self, path: str, weights: cards.ModuleWeights) -> slots.Part:
        return slots.Part(
            self._numbers[path], weights.rank, weights.in_features, weights.out_features
        )

    def _found(self, card: cards.LoRACard) -> dict[str, str]:
        """The name of the card's module for each layer."""
        found: dict[str, str] = {}
        for name, weights in card:
            path = self._resolve(name)
            if path is None:
                _log.warning("card %s: the model has no layer %s; skipped", card.name, name)
                continue
            layer = self._linears[path]
            shape = (weights.in_features, weights.out_features)
            if shape != (layer.in_features, layer.out_features):
                raise errors.InvalidInputError(
                    f"card {card.name}: module {name} has shape {shape}, the layer {path} has "
                    f"{(layer.in_features, layer.out_features)}"
                )
            if path in found:
                raise errors.InvalidInputError(
                    f"card {card.name}: two of its modules mean the layer {path}"
                )
            found[path] = name
        if not found:
            raise errors.InvalidInputError(f"card {card.name}: none of its modules is in the model")
        return found

    def _resolve(self, name: str) -> str | None:
        """The layer that a card's module means: by exact path, or with prefixes ignored."""
        if name in self._linears:
            return name
        bare = _without_prefix(name)
        matches = [
            path
            for path in self._linears
            if (own := _without_prefix(path)) == bare
            or own.endswith("." + bare)
            or bare.endswith("." + own)
        ]
        if len(matches) > 1:
            raise errors.InvalidInputError(
                f"module {name} is ambiguous: it could be any of {sorted(matches)[:4]}"
            )
        return matches[0] if matches else None

    def _put(self, path: str, module: torch.nn.Module) -> None:
        parent, name = self._places[path]
        # As setattr does it in the end, after checks that a module in a module's place passes.
        parent._modules[name] = module


def _place(model: torch.nn.Module, path: str) -> tuple[torch.nn.Module, str]:
    parent, _, name = path.rpartition(".")
    return model.get_submodule(parent), name


def _without_prefix(path: str) -> str:
    """A module path without the wrappers that libraries put in front of it."""
    while path.startswith(("base_model.", "model.")):
        path = path.partition(".")[2]
    return path
