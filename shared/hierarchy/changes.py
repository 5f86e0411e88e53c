"""Arithmetic on changes of A and B: sums, means and sizes, module by module.

Changes of one layer, from nearly the same weights, are added as they are (federated averaging:
McMahan et al. 2017); products of different layers are `weights`' business.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from shared.hierarchy import weights


def total(deltas: Iterable[weights.Delta]) -> dict[str, weights.Factors]:
    """The sum of changes of one layer; modules in the order in which they come first."""
    found: dict[str, weights.Factors] = {}
    for delta in deltas:
        for path, step in delta.items():
            held = found.get(path)
            found[path] = (
                step if held is None else weights.Factors(held.a + step.a, held.b + step.b)
            )
    return found


def scaled(delta: weights.Delta, by: float) -> dict[str, weights.Factors]:
    """A change of A and B times a number: both sides, unlike a product's."""
    return {path: weights.Factors(step.a * by, step.b * by) for path, step in delta.items()}


def less(one: weights.Delta, other: weights.Delta) -> dict[str, weights.Factors]:
    """A change without another that is part of it."""
    return {
        path: weights.Factors(step.a - other[path].a, step.b - other[path].b)
        if path in other
        else step
        for path, step in one.items()
    }


def between(before: weights.Weights, after: weights.Weights) -> dict[str, weights.Factors]:
    """The change that leads from one state of a layer to another."""
    return {
        path: weights.Factors(after[path].a - held.a, after[path].b - held.b)
        for path, held in before.items()
    }


def size(delta: Mapping[str, weights.Factors]) -> float:
    """Euclidean norm of all values of a change."""
    squares = (float(step.a.square().sum() + step.b.square().sum()) for step in delta.values())
    return math.sqrt(sum(squares))
