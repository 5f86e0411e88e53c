"""Tells a set in which one question has two answers, each in wordings of its own.

No two wordings need look alike for that. But where two facts are told apart, a wording's nearest
neighbour is one of its own fact; where they are one, it is as often one of the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from services.distiller import vectors
from services.distiller.quality import meaning, verdict
from shared.flight import datasets

_LEAST_WORDINGS = 3
_APART = 0.2
"""Share below which two facts are surely two: 0.99 of 2,580 duos of different facts have at most
0.26, 0.9 of 440 halves of one fact at least 0.22."""
_ONE_DUO = 2
_MIXED = 0.4
"""Share of wordings whose nearest one belongs to the other fact. Half is what chance gives; of
1,230 duos of different facts, written by people, six reach it: near misses such as an upper and a
lower terminus, of which a sound set has few."""


def unmixed(
    pairs: Sequence[datasets.QAPair],
    vector_of: Mapping[str, vectors.Vectors],
    most_share: float,
) -> verdict.Sifted:
    """Rejects the facts that mix with one that answers otherwise, where they are too many.

    Args:
        pairs: with different wordings.
        vector_of: the unit vector of each wording, shape (dimension,).
        most_share: of the facts, that may mix; two always may: one duo alone says little.
    """
    many = [(at, _wordings(pair, vector_of)) for at, pair in enumerate(pairs) if _has_many(pair)]
    mixed: dict[int, int] = {}
    for (one, left_L_D), (other, right_R_D) in itertools.combinations(many, 2):
        if mixture(left_L_D, right_R_D) >= _MIXED and not meaning.same_answer(
            pairs[one].answer, pairs[other].answer
        ):
            mixed.setdefault(one, other)
            mixed.setdefault(other, one)
    if len(mixed) <= max(_ONE_DUO, most_share * len(many)):
        mixed = {}
    return verdict.sift(
        (pair, _reason(pairs[mixed[at]]) if at in mixed else None) for at, pair in enumerate(pairs)
    )


def are_apart(
    one: datasets.QAPair, other: datasets.QAPair, vector_of: Mapping[str, vectors.Vectors]
) -> bool:
    """Whether the wordings of two pairs surely ask for different things."""
    if not (_has_many(one) and _has_many(other)):
        return False
    return mixture(_wordings(one, vector_of), _wordings(other, vector_of)) < _APART


def mixture(left_L_D: vectors.Vectors, right_R_D: vectors.Vectors) -> float:
    """Share of two facts' wordings, all unit vectors, whose nearest one is the other fact's."""
    own = np.repeat([0, 1], [len(left_L_D), len(right_R_D)])
    all_N_D = np.concatenate([left_L_D, right_R_D])
    likeness_N_N = all_N_D @ all_N_D.T
    np.fill_diagonal(likeness_N_N, -np.inf)
    return float((own[likeness_N_N.argmax(axis=1)] != own).mean())


def _has_many(pair: datasets.QAPair) -> bool:
    return pair.kind is datasets.Kind.FACT and len(pair.paraphrases) + 1 >= _LEAST_WORDINGS


def _wordings(pair: datasets.QAPair, vector_of: Mapping[str, vectors.Vectors]) -> vectors.Vectors:
    return np.stack([vector_of[text] for text in (pair.question, *pair.paraphrases)])


def _reason(other: datasets.QAPair) -> tuple[verdict.Reason, str]:
    told = f"wordings of both ask the same; {other.question} {other.answer}"
    return verdict.Reason.CONTRADICTED, told
