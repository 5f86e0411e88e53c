"""How a card is made to fit its budget: first the dtype gives way, then ranks, then lower layers.

A half-precision card answers like one in float32. A low rank learns facts nearly as well as a high
one until it is very low (Hu et al. 2021, section 7.2), and layers near the output are where an
answer's words are decided, so that a card that has to be small keeps its upper layers.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from shared import errors
from shared import settings as config

LEAST_RANK = 4
"""Below it lower layers are left out instead."""
_ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_MODULE_BYTES = 512
"""What a module takes in a card's file besides its matrices, at most."""
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a card is made of."""

    ranks: dict[str, int]
    """By path of the layer."""
    dtype: str
    size_bytes: int
    """Of the file, with all that is set aside."""
    why: str
    """How it came to this, for people."""


def layer_number(path: str) -> int | None:
    """The decoder layer that a path lies in; None outside of all."""
    found = _LAYER.search(path)
    return int(found[1]) if found else None


def ranks(paths: Sequence[str], rank: int, factor: int, recipe: config.Recipe) -> dict[str, int]:
    """The rank of each layer; that of its path goes before that of its kind.

    Args:
        paths: of the layers that the recipe adapts.
        rank: of those that the recipe names no rank for.
        factor: times the ranks that it names.
        recipe: names ranks.

    Raises:
        errors.ConfigError: it names a layer that the base model does not have.
    """
    named = recipe.ranks
    unknown = named.keys() - set(paths) - set(recipe.target_modules)
    if unknown:
        raise errors.ConfigError(
            f"model.recipes: ranks: the base model has no layers {sorted(unknown)}"
        )
    own = {path: named.get(path) or named.get(path.rpartition(".")[2]) for path in paths}
    return {path: factor * own_rank if own_rank else rank for path, own_rank in own.items()}


def fit(
    shapes: Mapping[str, tuple[int, int]],
    ranks: Mapping[str, int],
    dtype: str,
    budget_bytes: int,
    aside_bytes: int = 0,
) -> Plan:
    """The card that is asked for, or the nearest one that fits.

    Args:
        shapes: in and out features of each layer, by path.
        ranks: that are asked for, by path of the layer.
        dtype: that is asked for: float32, float16 or bfloat16.
        budget_bytes: what the file may take.
        aside_bytes: what its text takes.

    Raises:
        errors.ConfigError: not even one layer fits.
    """

    def size(ranks: Mapping[str, int], dtype: str) -> int:
        elements = sum(rank * sum(shapes[path]) for path, rank in ranks.items())
        return elements * _ITEM_BYTES[dtype] + len(ranks) * _MODULE_BYTES + aside_bytes

    asked, steps = dict(ranks), []
    chosen = dict(ranks)
    if size(chosen, dtype) > budget_bytes and dtype == "float32":
        dtype = "float16"
        steps.append("float32 became float16")
    highest = max(chosen.values())
    for most in range(highest, LEAST_RANK - 1, -1):
        chosen = {path: min(rank, most) for path, rank in asked.items()}
        if size(chosen, dtype) <= budget_bytes or most == LEAST_RANK:
            if most < highest:
                steps.append(f"ranks above {most} became {most}")
            break
    numbers = sorted({n for path in chosen if (n := layer_number(path)) is not None})
    for at, first in enumerate(numbers):
        kept = {
            path: rank
            for path, rank in chosen.items()
            if (number := layer_number(path)) is None or number >= first
        }
        if size(kept, dtype) <= budget_bytes:
            if at:
                steps.append(f"the upper {len(numbers) - at} of {len(numbers)} layers were kept")
            chosen = kept
            break
    # Nothing fits: the message names the least there is.
    else:
        chosen = kept if numbers else chosen
    if size(chosen, dtype) > budget_bytes:
        raise errors.ConfigError(
            f"trainer.card_budget_mb: the smallest card takes {_mb(size(chosen, dtype))}, the "
            f"budget is {_mb(budget_bytes)}; raise it, or name fewer target_modules"
        )
    how = "; ".join(steps) or "as the recipe asks"
    used = sorted(set(chosen.values()))
    rank = f"rank {used[0]}" if len(used) == 1 else f"ranks {used[0]} to {used[-1]}"
    taken = size(chosen, dtype)
    why = f"{_mb(taken)} of at most {_mb(budget_bytes)} with {rank} in {dtype}: {how}"
    return Plan(chosen, dtype, taken, why)


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.2f} MB"
