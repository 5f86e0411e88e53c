"""How many things a few answers to one question mean: the discrete semantic entropy.

Kuhn, Gal and Farquhar, Semantic Uncertainty, ICLR 2023; Farquhar et al., Detecting hallucinations
in large language models using semantic entropy, Nature 2024. They have a model of entailment say
which answers mean the same; see `meanings` for what says so here. Pure.
"""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from shared import grading, questions

Vectors = npt.NDArray[np.float32]
ALIKE = 0.95
"""Cosine from which on two answers mean the same: "Yes, it is open." and "No, it is not open." have
0.94."""
_NUMBER = re.compile(r"\d+")


def wordings(answers: Sequence[str]) -> tuple[list[str], list[int]]:
    """Tells answers apart by their words, without case, punctuation and white space.

    Returns:
        The first answer of each wording, and for each answer the place of its wording.
    """
    places: dict[str, int] = {}
    firsts: list[str] = []
    found = []
    for answer in answers:
        folded = questions.fold(answer)
        if folded not in places:
            places[folded] = len(firsts)
            firsts.append(answer)
        found.append(places[folded])
    return firsts, found


def meanings(texts: Sequence[str], vectors_N_D: Vectors, alike: float = ALIKE) -> list[int]:
    """The number of each text's meaning: that of the first meaning whose first text says the same.

    Two say the same where they name the same numbers, and either their vectors are near, or the
    words of one stand in the other in a row, or both say that they do not know.

    Args:
        texts: different wordings.
        vectors_N_D: their unit vectors, float32.
        alike: cosine from which on vectors are near.
    """
    cosines_N_N = vectors_N_D @ vectors_N_D.T
    firsts: list[int] = []
    found = []
    for row in range(len(texts)):
        same = [
            meaning
            for meaning, first in enumerate(firsts)
            if _same(texts[row], texts[first], near=bool(cosines_N_N[row, first] >= alike))
        ]
        if not same:
            firsts.append(row)
        found.append(same[0] if same else len(firsts) - 1)
    return found


def entropy(labels: Sequence[int]) -> float:
    """Of how often each label comes, in nats; 0 where all are the same, and of none."""
    shares = [count / len(labels) for count in collections.Counter(labels).values()]
    return sum(share * math.log(1 / share) for share in shares)


def _same(one: str, other: str, near: bool) -> bool:
    if _NUMBER.findall(one) != _NUMBER.findall(other):
        return False
    if near or grading.is_right(one, other) or grading.is_right(other, one):
        return True
    return grading.admits_ignorance(one) and grading.admits_ignorance(other)
