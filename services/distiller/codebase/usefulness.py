"""How useful a definition is to learn from; only to compare those of one repository."""

from __future__ import annotations

import math

from services.distiller.codebase import chunks, definitions

_BEST_STATEMENTS = 8
_STATEMENTS_SPREAD = 1.1
"""Of the logarithm: 3 and 24 statements still count more than half of the best."""
_ENOUGH_DOCUMENTATION = 60
"""Characters of a docstring that says more than the name."""
_CLASS_WORTH = 0.7
"""A class is learned through its methods, too."""


def usefulness(
    definition: definitions.Definition, callers: int, tests: int, is_typed: bool
) -> float:
    r"""How much a definition teaches of its repository.

    The sum of what it has, times how far its length is from the best:

        u = (0.2 + d + c + t + a) · exp(-(ln(n / 8) / 1.1)² / 2) · w

    - d: up to 1 for documentation, in proportion to its length until 60 characters: what is
      documented can be asked for in words.
    - c: ln(1 + callers) / ln(10), at most 1: what is called from many places is the house's own
      vocabulary. Tests do not count as callers.
    - t: 1 with a test, 1.2 with several: there its behaviour is written down.
    - a: 0.2 for annotated arguments or results, of any language that has types anyway.
    - n: statements. Very short ones, such as getters, hold no style, very long ones do not fit.
    - w: 0.7 for a class, 0.5 for a special method such as `__repr__`, which looks the same
      everywhere, and 0.1 for tests: they are learned beside what they test.

    Args:
        definition: the definition.
        callers: different definitions that call it, those of tests left out.
        tests: that call it.
        is_typed: its signature says types.
    """
    documented = min(1.0, len(definition.docstring) / _ENOUGH_DOCUMENTATION)
    called = min(1.0, math.log1p(callers) / math.log(10))
    tested = 0.0 if not tests else 1.0 if tests == 1 else 1.2
    has = 0.2 + documented + called + tested + (0.2 if is_typed else 0.0)
    distance = math.log(max(definition.statements, 1) / _BEST_STATEMENTS) / _STATEMENTS_SPREAD
    return has * math.exp(-(distance**2) / 2) * _weight(definition)


def _weight(definition: definitions.Definition) -> float:
    if definition.is_test:
        return 0.1
    name = definition.symbol.rpartition(".")[2]
    if name.startswith("__") and name.endswith("__") and name != "__init__":
        return 0.5
    return _CLASS_WORTH if definition.form is chunks.Form.CLASS else 1.0
