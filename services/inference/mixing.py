"""Several cards as one, for a question that is about more than one of them.

What the cards add to the weights is added up, each times its share: a linear merge, exact but for
rounding, whose rank is the sum of theirs. Knows nothing about routing or memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from shared.cards import card as cards
from shared.cards import manifest as manifests
from shared.lora import algebra

_STEPS = 20
"""Weights are rounded to so many parts: questions of about the same mixture share a card."""


@dataclasses.dataclass(frozen=True)
class Share:
    """What one card has in an answer."""

    card: str
    """`name@digest`."""
    weight: float
    """Those of all cards sum to 1."""


@dataclasses.dataclass(frozen=True)
class Together:
    """When cards answer together; see `shared.inference_settings`."""

    max_cards: int
    least_share: float


ALONE = Together(max_cards=1, least_share=0.25)


def shares(
    found: Sequence[tuple[str, float]], together: Together, max_cards: int = 0
) -> tuple[Share, ...]:
    """The cards that answer together, the heaviest first; weights are as the probabilities.

    Args:
        found: keys and probabilities of the cards that fit, best first, at least one.
        together: how many may take part, and who.
        max_cards: how many, where somebody says; else 0.
    """
    least = together.least_share * found[0][1]
    most = max_cards or together.max_cards
    near = [(card, p) for card, p in found[:most] if p > 0 and p >= least]
    parts = _rounded([p for _, p in near]) if near else []
    taken = [(card, n) for (card, _), n in zip(near, parts, strict=True) if n]
    if not taken:
        return (Share(found[0][0], 1.0),)
    return tuple(Share(card, n / _STEPS) for card, n in taken)


def key(found: Sequence[Share]) -> str:
    """What a mixture is called on its node."""
    return " + ".join(f"{one.weight:.2f} {one.card}" for one in found)


def merged(found: Sequence[Share], parts: Sequence[cards.LoRACard]) -> cards.LoRACard:
    """One card of several.

    Args:
        found: whose weights they have.
        parts: the cards, in the same order.

    Raises:
        errors.SkillmeshError: they do not belong together; see `algebra.merge`.
    """
    recipe = algebra.Recipe(weights=tuple(one.weight for one in found))
    told = parts[0].manifest
    manifest = told.model_copy(
        update={
            "name": manifests.slug(" ".join(["mix", *(part.name for part in parts)])),
            "description": key(found),
            "routing": None,
            "lineage": None,
            "gate": (),
        }
    )
    return algebra.merge(parts, recipe).to_card(manifest)


def _rounded(probabilities: Sequence[float]) -> list[int]:
    """Parts of `_STEPS`, by largest remainder: they sum to it."""
    total = sum(probabilities)
    exact = [p / total * _STEPS for p in probabilities]
    parts = [int(one) for one in exact]
    order = sorted(range(len(exact)), key=lambda at: parts[at] - exact[at])
    for at in order[: _STEPS - sum(parts)]:
        parts[at] += 1
    return parts
