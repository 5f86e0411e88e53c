"""Every number that decides what the embedded base model becomes."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Sizes, rates and weights; written into the checkpoint's `recipe.json`."""

    seed: int = 7
    steps: int = 1600
    tokens_a_step: int = 4000
    """Conversations' tokens a step, padding included."""
    prose_rows: int = 2
    prose_tokens: int = 96
    conversations: int = 100_000
    known_share: float = 0.14
    invented_share: float = 0.20
    unknown_share: float = 0.66
    invented_facts: int = 700
    vocab_size: int = 8192
    hidden: int = 256
    layers: int = 4
    heads: int = 4
    intermediate: int = 512
    muon_rate: float = 0.02
    adamw_rate: float = 0.002
    warmup_steps: int = 15
    flat_share: float = 0.3
    prose_weight: float = 0.3
    meaning_weight: float = 2.0
    contrast_weight: float = 0.5
    contrast_temperature: float = 0.1
    threads: int = 1


def learning_rate_share(step: int, recipe: Recipe) -> float:
    """Warm-up, then flat, then linear to zero."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    flat_until = recipe.steps * recipe.flat_share
    return min(1.0, (recipe.steps - step) / (recipe.steps - flat_until))
