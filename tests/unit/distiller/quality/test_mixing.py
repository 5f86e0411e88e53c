"""One question with two answers, each in wordings of its own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from services.distiller.quality import mixing
from shared.flight import datasets
from tests.unit.distiller.fakes import pair

RNG = np.random.default_rng(0)


def _around(centre: np.ndarray, count: int) -> list[np.ndarray]:
    found = centre + 0.3 * RNG.normal(size=(count, len(centre)))
    return list(found / np.linalg.norm(found, axis=1, keepdims=True))


def _facts(count: int, twice: int) -> tuple[list[datasets.QAPair], dict[str, np.ndarray]]:
    """Facts of four wordings each; the first `twice` of them come once more, answered otherwise."""
    pairs, vector_of = [], {}
    for number in range(count):
        centre = RNG.normal(size=48)
        for version in range(1 + (number < twice)):
            texts = [f"question {number} {version} {w}" for w in range(4)]
            vector_of |= dict(zip(texts, _around(centre, 4), strict=True))
            pairs.append(pair(texts[0], f"answer {number} {version}", *texts[1:]))
    return pairs, vector_of


@pytest.mark.parametrize(("twice", "rejected"), [(0, 0), (1, 0), (6, 12)])
def test_set_is_rejected_when_many_facts_have_two_answers(twice: int, rejected: int) -> None:
    pairs, vector_of = _facts(8, twice)
    sifted = mixing.unmixed(pairs, vector_of, 0.3)
    # Twelve halves of six facts; by chance a half may keep to itself.
    assert len(sifted.rejected) == pytest.approx(rejected, abs=4 if rejected else 0)
    assert len(sifted.kept) + len(sifted.rejected) == len(pairs)
    for one in sifted.rejected:
        number = one.pair.question.split()[1]
        assert f"question {number}" in one.detail


def test_one_duo_is_kept_when_the_facts_are_few() -> None:
    pairs, vector_of = _facts(2, 1)
    texts = [list(map(vector_of.get, (one.question, *one.paraphrases))) for one in pairs[:2]]
    assert mixing.mixture(*map(np.stack, texts)) >= 0.4
    assert mixing.unmixed(pairs, vector_of, 0.3).rejected == ()


def test_nothing_is_rejected_when_both_answers_are_the_same() -> None:
    pairs, vector_of = _facts(6, 6)
    same = [dataclasses.replace(one, answer="412 m") for one in pairs]
    assert mixing.unmixed(same, vector_of, 0.3).rejected == ()


def test_mixture_is_none_when_facts_lie_apart_and_half_when_they_are_one() -> None:
    one, other = RNG.normal(size=48), RNG.normal(size=48)
    assert mixing.mixture(np.stack(_around(one, 20)), np.stack(_around(other, 20))) == 0.0
    both = np.stack(_around(one, 40))
    assert mixing.mixture(both[:20], both[20:]) == pytest.approx(0.5, abs=0.25)


def test_facts_are_told_apart_when_their_wordings_are_many_and_lie_apart() -> None:
    pairs, vector_of = _facts(2, 1)
    half, other_half, another = pairs
    assert mixing.are_apart(half, another, vector_of)
    assert not mixing.are_apart(half, other_half, vector_of)
    few = dataclasses.replace(another, paraphrases=another.paraphrases[:1])
    assert not mixing.are_apart(half, few, vector_of)
    # What follows from a fact may have no vectors.
    implied = dataclasses.replace(another, kind=datasets.Kind.IMPLICATION)
    assert not mixing.are_apart(half, implied, {})
