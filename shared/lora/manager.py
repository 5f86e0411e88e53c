"""`LoRAManager`: brings cards into a model and out of it again, without a trace.

It wraps the target layers of any torch model in `LoRALinear` when the first card needs them, and
restores the very same `nn.Linear` objects when the last card leaves. One thread at a time may call
it; the engine takes care of that.
"""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Iterable

import torch

from shared import errors
from shared.cards import card as cards
from shared.cards import format as formats
from shared.lora import linear, tensors

_log = logging.getLogger(__name__)


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
        self._dtype = next(model.parameters()).dtype
        self._linears = {
            path: module
            for path, module in model.named_modules()
            if isinstance(module, torch.nn.Linear)
        }
        self._wrapped: dict[str, linear.LoRALinear] = {}
        self._cards: dict[str, list[str]] = {}
        self._active: str | None = None

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
        if key in self._cards:
            _log.warning("card %s is already applied; nothing changed", key)
            return
        self._check_base(card)
        found = self._fit(card)
        adapters = {
            path: tensors.adapter_of(weights, self._dtype) for path, weights in found.items()
        }
        for path, adapter in adapters.items():
            self._wrap(path).add(key, adapter)
        self._cards[key] = list(adapters)

    def add_trainable(
        self, key: str, paths: Iterable[str], rank: int, alpha: float, generator: torch.Generator
    ) -> dict[str, linear.Adapter]:
        """Adds fresh trainable adapters to the given layers and returns them by path."""
        made = {path: self._wrap(path).add_trainable(key, rank, alpha, generator) for path in paths}
        self._cards[key] = list(made)
        return made

    def activate(self, key: str | None) -> None:
        """Makes one resident card answer, or with None the bare base.

        Raises:
            errors.NotFoundError: the card is not resident.
        """
        if key is not None and key not in self._cards:
            raise errors.NotFoundError(f"card {key} is not resident on this node")
        for layer in self._wrapped.values():
            layer.activate(key)
        self._active = key

    def remove_card(self, key: str) -> None:
        """Takes a card out; silent if it is not there.

        Layers that no card needs any more become the very `nn.Linear` objects they were.
        """
        for path in self._cards.pop(key, []):
            layer = self._wrapped[path]
            layer.remove(key)
            if not layer.keys:
                self._put(path, layer.base)
                del self._wrapped[path]
        if self._active == key:
            self._active = None

    def list_cards(self) -> list[str]:
        """Keys of the resident cards, in the order of their coming."""
        return list(self._cards)

    @property
    def active(self) -> str | None:
        """The card that answers now."""
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

    def _check_base(self, card: cards.LoRACard) -> None:
        made_for = card.manifest.base_model
        if self._fingerprint is not None and made_for.fingerprint != self._fingerprint:
            raise errors.BaseModelMismatchError(
                f"card {card.name} was made for base model {made_for.id} "
                f"({made_for.fingerprint[:12]}), this node runs {self._fingerprint[:12]}; "
                "train it again for this base"
            )

    def _fit(self, card: cards.LoRACard) -> dict[str, cards.ModuleWeights]:
        found: dict[str, cards.ModuleWeights] = {}
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
            found[path] = weights
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

    def _wrap(self, path: str) -> linear.LoRALinear:
        if path not in self._wrapped:
            self._wrapped[path] = linear.LoRALinear(self._linears[path])
            self._put(path, self._wrapped[path])
        return self._wrapped[path]

    def _put(self, path: str, module: torch.nn.Module) -> None:
        parent, _, name = path.rpartition(".")
        setattr(self._model.get_submodule(parent), name, module)


def _without_prefix(path: str) -> str:
    """A module path without the wrappers that libraries put in front of it."""
    while path.startswith(("base_model.", "model.")):
        path = path.partition(".")[2]
    return path
