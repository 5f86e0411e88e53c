"""`LoRAExtractor`: a card out of weights that somebody else trained, by truncated SVD.

What a fine-tuned model has more than its base is a change of weights; its best approximation of a
low rank is a card (Eckart and Young 1936). What the card can't hold, such as changed embeddings
and norms, is reported, not hidden.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from shared import errors
from shared.cards import card as cards
from shared.cards import manifest as manifests
from shared.lora import linear, lowrank, tensors
from shared.lora import manager as managers
from shared.models import base as bases

_TEXT_TOKENS = 512
_SHARED_HALVINGS = 8
"""Modules share a scale whose factors are at most that many halvings smaller than the largest."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How much of the change is kept."""

    kinds: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    """Last dotted parts of the modules to extract."""
    rank: int = 16
    """The highest of a module."""
    energy: float = 1.0
    """A module takes a lower rank where that keeps this share of its change's squared norm."""
    randomised: bool = False
    """The fast decomposition instead of the exact one."""
    seed: int = 0
    """Of the fast one."""
    dtype: str = "float16"
    """How the card keeps its weights: float32, float16 or bfloat16."""


@dataclasses.dataclass(frozen=True)
class ModuleReport:
    """What became of one module's change, once the card's weights are rounded to their dtype."""

    path: str
    rank: int
    norm: float
    """Frobenius norm of the change."""
    energy: float
    """Share of its square that is kept: 1 - error**2."""
    error: float
    """Relative Frobenius error: of what the card leaves out, over the whole."""


@dataclasses.dataclass(frozen=True)
class Extraction:
    """The weights of a card, and what was lost on the way."""

    modules: dict[str, cards.ModuleWeights]
    report: tuple[ModuleReport, ...]
    left_out: tuple[str, ...]
    """Weights that differ, too, but that the card does not hold."""

    @property
    def energy(self) -> float:
        """Share of all modules' squared change that is kept."""
        return 1.0 - self.error**2

    @property
    def error(self) -> float:
        """Relative Frobenius error over all modules."""
        total = math.hypot(*(row.norm for row in self.report))
        left = math.hypot(*(row.norm * row.error for row in self.report))
        return left / total if total else 0.0

    def to_card(self, manifest: manifests.Manifest) -> cards.LoRACard:
        """A card of these weights; the manifest's target modules become theirs."""
        kinds = tuple(dict.fromkeys(path.rpartition(".")[2] for path in self.modules))
        return cards.LoRACard(manifest.model_copy(update={"target_modules": kinds}), self.modules)


class LoRAExtractor:
    """Extracts by one recipe."""

    def __init__(self, recipe: Recipe) -> None:
        """Takes the recipe.

        Raises:
            errors.InvalidInputError: its dtype is none that a card may have.
        """
        if recipe.dtype not in tensors.DTYPES:
            raise errors.InvalidInputError(
                f"dtype is {recipe.dtype!r}; a card holds {', '.join(tensors.DTYPES)}"
            )
        self._recipe = recipe

    def delta(self, base: torch.nn.Module, tuned: torch.nn.Module) -> Extraction:
        """The card that makes the base model the tuned one, as nearly as its rank allows.

        Args:
            base: the model that cards are applied to.
            tuned: the same architecture with other weights.

        Raises:
            errors.InvalidInputError: the models differ in names or shapes of weights, do not
                differ in any of the wanted modules, or hold NaN.
            errors.NotFoundError: a kind that the model does not have.
        """
        before, after = base.state_dict(), tuned.state_dict()
        _check_alike(before, after)
        wanted = self._wanted(base)
        changes = {path: _change(before, after, path) for path in wanted}
        changed = {path: change for path, change in changes.items() if bool(change.any())}
        if not changed:
            raise errors.InvalidInputError(
                f"the models do not differ in any of {list(self._recipe.kinds)}; name other kinds"
            )
        held = {f"{path}.weight" for path in changed}
        left_out = tuple(
            name
            for name, weight in before.items()
            if name not in held and not torch.equal(weight, after[name])
        )
        return self._extracted(changed, left_out)

    def direct(self, matrices: Mapping[str, torch.Tensor]) -> Extraction:
        """The card that adds these matrices.

        Args:
            matrices: module path to a change of its weight, in the orientation of
                `nn.Linear.weight`, (out_features, in_features).

        Raises:
            errors.InvalidInputError: there are none, or one is no finite matrix.
        """
        if not matrices:
            raise errors.InvalidInputError("there are no matrices to extract from")
        return self._extracted({path: matrix.T for path, matrix in matrices.items()}, ())

    def _wanted(self, model: torch.nn.Module) -> list[str]:
        linears = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
        missing = set(self._recipe.kinds) - {path.rpartition(".")[2] for path in linears}
        if missing:
            raise errors.NotFoundError(f"the model has no layers called {sorted(missing)}")
        return [path for path in linears if path.rpartition(".")[2] in self._recipe.kinds]

    def _extracted(
        self, changes: Mapping[str, torch.Tensor], left_out: tuple[str, ...]
    ) -> Extraction:
        generator = torch.Generator().manual_seed(self._recipe.seed)
        factors = {path: self._factors(change, generator) for path, change in changes.items()}
        modules = {
            path: _weights(factors[path], halvings, self._recipe.dtype)
            for path, halvings in _halvings(factors).items()
        }
        report = tuple(_report(path, change, modules[path]) for path, change in changes.items())
        return Extraction(modules, report, left_out)

    def _factors(self, change: torch.Tensor, generator: torch.Generator) -> lowrank.Factors:
        recipe = self._recipe
        if recipe.randomised:
            return lowrank.randomised(change, recipe.rank, generator, recipe.energy)
        return lowrank.exact(change, recipe.rank, recipe.energy)


def _halvings(factors: Mapping[str, lowrank.Factors]) -> dict[str, int]:
    """How often each module's A and B are to be halved, so that their entries are at most 1.

    Float16 has few bits for small numbers and none below 6e-8: the magnitude of a change belongs
    into alpha. It is the same for all modules that are not smaller by far, since a PEFT adapter has
    one scale.
    """
    found = {
        path: math.frexp(max(float(side.abs().max()) for side in (one.lora_a, one.lora_b)))[1]
        for path, one in factors.items()
        if bool(one.lora_b.any())
    }
    most = max(found.values(), default=0)
    shared = most - _SHARED_HALVINGS
    return {
        path: most if path not in found or found[path] >= shared else found[path]
        for path in factors
    }


def _weights(factors: lowrank.Factors, halvings: int, dtype: str) -> cards.ModuleWeights:
    # Powers of two: neither the division here nor the product with the scale rounds anything.
    half, scale = 2.0**-halvings, 4.0**halvings
    adapter = linear.Adapter(factors.lora_a * half, factors.lora_b * half, scale)
    return tensors.weights_of(adapter, scale * factors.rank, dtype)


def _report(path: str, change: torch.Tensor, weights: cards.ModuleWeights) -> ModuleReport:
    """Measures what the card's own buffers leave out of a change, (in_features, out_features)."""
    lora = tensors.adapter_of(weights, torch.float64)
    whole = change.double()
    norm = float(whole.norm())
    left = float((whole - lora.lora_a @ lora.lora_b * lora.scale).norm())
    error = left / norm if norm else 0.0
    return ModuleReport(path, weights.rank, norm, 1.0 - error**2, error)


@torch.no_grad()
def divergence(reference: bases.BaseModel, model: bases.BaseModel, texts: Sequence[str]) -> float:
    """Mean Kullback-Leibler divergence of the next token's distributions, in nats a token.

    Args:
        reference: the model whose distributions are right; its tokenizer is used.
        model: the one that is measured, with whatever card is active in it.
        texts: each is read up to 512 tokens; at least one.

    Raises:
        errors.InvalidInputError: there are no texts.
    """
    if not texts:
        raise errors.InvalidInputError("give at least one text to measure on")
    total, tokens = 0.0, 0
    for text in texts:
        ids = torch.tensor([reference.prompt_ids(text)[:_TEXT_TOKENS]])
        right, found = (_log_probabilities(one.model, ids) for one in (reference, model))
        total += float((right.exp() * (right - found)).sum())
        tokens += ids.shape[1]
    return total / tokens


def remaining_divergence(
    base: bases.BaseModel, tuned: bases.BaseModel, card: cards.LoRACard, texts: Sequence[str]
) -> float:
    """What still lies between the tuned model and the base with the card; see `divergence`."""
    manager = managers.LoRAManager(base.model)
    manager.apply_card(card, "extracted")
    try:
        manager.activate("extracted")
        return divergence(tuned, base, texts)
    finally:
        manager.remove_card("extracted")


def _log_probabilities(model: Any, ids_1_T: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(ids_1_T).logits
    return logits[0].double().log_softmax(-1)


def _check_alike(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> None:
    for name in before.keys() ^ after.keys():
        whose = "base" if name in before else "tuned"
        raise errors.InvalidInputError(f"only the {whose} model has a weight {name}")
    for name, weight in before.items():
        if weight.shape != after[name].shape:
            raise errors.InvalidInputError(
                f"weight {name} has shape {tuple(weight.shape)} in the base and "
                f"{tuple(after[name].shape)} in the tuned model"
            )


def _change(
    before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor], path: str
) -> torch.Tensor:
    """(in_features, out_features), float32."""
    name = f"{path}.weight"
    return (after[name].float() - before[name].float()).T
