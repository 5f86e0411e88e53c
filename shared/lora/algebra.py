"""Card algebra: several cards of one base model become one.

Everything is done to what a card adds to the weights, `A @ B * alpha / rank` of each module, never
to A and B by themselves, which have no meaning alone. The result says its rank.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence

import torch

from shared import errors
from shared.cards import card as cards
from shared.cards import manifest as manifests
from shared.lora import linear, lowrank, tensors


class Method(enum.Enum):
    """How changes of weights become one."""

    LINEAR = "linear"
    """Their weighted sum, exactly: the matrices side by side. The ranks add up."""
    SVD = "svd"
    """The best approximation of that sum of a given rank."""
    TIES = "ties"
    """Trim, elect sign, merge what agrees (Yadav et al. 2023), then the best of a given rank."""
    DARE = "dare"
    """Drop entries at random, scale up the rest, add (Yu et al. 2024), then as before."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How cards are merged."""

    method: Method = Method.LINEAR
    weights: tuple[float, ...] = ()
    """Of each card; empty for 1 / number of cards each."""
    rank: int | None = None
    """Of the result; None for the highest of the cards. Without effect for LINEAR."""
    density: float = 0.5
    """Share of entries that TIES and DARE keep of each card, above 0, at most 1."""
    seed: int = 0
    """What DARE drops."""
    dtype: str = "float32"
    """How the result keeps its weights."""


@dataclasses.dataclass(frozen=True)
class Merged:
    """The merged weights and how good they are."""

    modules: dict[str, cards.ModuleWeights]
    rank: int
    """The highest of the modules."""
    energy: dict[str, float]
    """Of each module, the share of the merged change's squared norm that its rank holds."""

    def to_card(self, manifest: manifests.Manifest) -> cards.LoRACard:
        """A card of these weights; the manifest's target modules become theirs."""
        kinds = tuple(dict.fromkeys(path.rpartition(".")[2] for path in self.modules))
        return cards.LoRACard(manifest.model_copy(update={"target_modules": kinds}), self.modules)


def merge(parts: Sequence[cards.LoRACard], recipe: Recipe) -> Merged:
    """Merges cards of one base model.

    A module that only some cards adapt is merged of those: the others change nothing there.

    Args:
        parts: at least one card.
        recipe: method, weights and rank.

    Raises:
        errors.BaseModelMismatchError: the cards belong to different base models.
        errors.InvalidInputError: no cards, or a field of the recipe is out of range.
    """
    shares = _checked(parts, recipe)
    rank = recipe.rank or max(card.rank for card in parts)
    paths = dict.fromkeys(path for card in parts for path, _ in card)
    generator = torch.Generator().manual_seed(recipe.seed)
    found: dict[str, lowrank.Factors] = {}
    for path in paths:
        changes = [
            _Change.of(card.modules[path], share)
            for card, share in zip(parts, shares, strict=True)
            if path in card.modules
        ]
        if len({change.shape for change in changes}) > 1:
            raise errors.InvalidInputError(f"module {path}: the cards give it different shapes")
        found[path] = _merged(changes, recipe, rank, generator)
    modules = {
        path: tensors.weights_of(
            linear.Adapter(factors.lora_a, factors.lora_b, 1.0), float(factors.rank), recipe.dtype
        )
        for path, factors in found.items()
    }
    return Merged(
        modules,
        rank=max(factors.rank for factors in found.values()),
        energy={path: factors.energy for path, factors in found.items()},
    )


@dataclasses.dataclass(frozen=True)
class _Change:
    """What a card adds to one module, as factors with the scale in B."""

    lora_a: torch.Tensor
    lora_b: torch.Tensor
    share: float

    @staticmethod
    def of(weights: cards.ModuleWeights, share: float) -> _Change:
        adapter = tensors.adapter_of(weights, torch.float64)
        return _Change(adapter.lora_a, adapter.lora_b * adapter.scale, share)

    @property
    def shape(self) -> tuple[int, int]:
        return self.lora_a.shape[0], self.lora_b.shape[1]

    @property
    def delta(self) -> torch.Tensor:
        return self.lora_a @ self.lora_b


def _checked(parts: Sequence[cards.LoRACard], recipe: Recipe) -> tuple[float, ...]:
    if not parts:
        raise errors.InvalidInputError("there are no cards to merge; give at least one")
    bases = {card.manifest.base_model.fingerprint for card in parts}
    if len(bases) > 1:
        raise errors.BaseModelMismatchError(
            "the cards belong to different base models: "
            + ", ".join(f"{card.name} to {card.manifest.base_model.id}" for card in parts)
        )
    shares = recipe.weights or tuple(1.0 / len(parts) for _ in parts)
    if len(shares) != len(parts):
        raise errors.InvalidInputError(f"{len(shares)} weights for {len(parts)} cards")
    if not 0.0 < recipe.density <= 1.0:
        raise errors.InvalidInputError(
            f"density is {recipe.density}; give a share above 0, at most 1"
        )
    if recipe.rank is not None and recipe.rank < 1:
        raise errors.InvalidInputError(f"rank is {recipe.rank}; it must be at least 1")
    return shares


def _merged(
    changes: Sequence[_Change], recipe: Recipe, rank: int, generator: torch.Generator
) -> lowrank.Factors:
    def side_by_side() -> tuple[torch.Tensor, torch.Tensor]:
        return (
            torch.cat([change.lora_a for change in changes], dim=1),
            torch.cat([change.lora_b * change.share for change in changes], dim=0),
        )

    match recipe.method:
        case Method.LINEAR:
            lora_a, lora_b = side_by_side()
            if lora_a.shape[1] > min(lora_a.shape[0], lora_b.shape[1]):
                # More columns than the layer has: the same matrix has exact smaller factors.
                return lowrank.of_product(lora_a, lora_b, min(changes[0].shape))
            return lowrank.Factors(lora_a.float(), lora_b.float(), energy=1.0)
        case Method.SVD:
            return lowrank.of_product(*side_by_side(), rank)
        case Method.TIES:
            return lowrank.exact(_ties(changes, recipe.density), rank)
        case Method.DARE:
            return lowrank.exact(_dare(changes, recipe.density, generator), rank)


def _ties(changes: Sequence[_Change], density: float) -> torch.Tensor:
    """Trimmed to the largest entries, then the mean of those that have the elected sign."""
    trimmed_C_I_O = torch.stack([_trimmed(change.delta, density) for change in changes])
    shares_C = torch.tensor([change.share for change in changes], dtype=trimmed_C_I_O.dtype)
    weighted_C_I_O = trimmed_C_I_O * shares_C[:, None, None]
    elected_I_O = weighted_C_I_O.sum(0).sign()
    agrees_C_I_O = (weighted_C_I_O.sign() == elected_I_O) & (trimmed_C_I_O != 0)
    # The mean over those that agree, by weight; times the weights' sum, so that cards which never
    # disagree are merged as LINEAR does it.
    mass_I_O = (agrees_C_I_O * shares_C.abs()[:, None, None]).sum(0)
    total = float(shares_C.abs().sum())
    merged_I_O = (weighted_C_I_O * agrees_C_I_O).sum(0) * total
    return torch.where(mass_I_O > 0, merged_I_O / mass_I_O.clamp_min(1e-30), 0.0)


def _trimmed(delta: torch.Tensor, density: float) -> torch.Tensor:
    keep = max(1, round(density * delta.numel()))
    if keep == delta.numel():
        return delta
    threshold = delta.abs().flatten().kthvalue(delta.numel() - keep + 1).values
    return torch.where(delta.abs() >= threshold, delta, 0.0)


def _dare(changes: Sequence[_Change], density: float, generator: torch.Generator) -> torch.Tensor:
    """Each entry is kept with the probability `density` and divided by it: right on average."""
    total = torch.zeros(changes[0].shape, dtype=torch.float64)
    for change in changes:
        kept = torch.rand(change.shape, generator=generator) < density
        total += change.share * change.delta * kept / density
    return total
