"""Which answers mean the same, and the entropy over what they mean; values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from services.inference import meanings


def _at(*degrees: float) -> meanings.Vectors:
    turned = np.radians(np.array(degrees))
    return np.stack([np.cos(turned), np.sin(turned)], axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("labels", "nats"),
    [
        ([], 0.0),
        ([4], 0.0),
        ([1, 1, 1, 1, 1], 0.0),
        ([0, 0, 0, 0, 1], 0.500402),
        ([0, 1, 0, 1, 0], 0.673012),
        ([0, 0, 0, 1, 2], 0.950271),
        ([0, 1, 2, 3, 4], math.log(5)),
    ],
)
def test_entropy_is_that_computed_by_hand(labels, nats):
    assert meanings.entropy(labels) == pytest.approx(nats, abs=1e-6)


def test_wordings_are_one_when_only_case_and_punctuation_differ():
    answers = ["Paris.", "paris", "In Rome!", " PARIS ", "in rome", ""]
    assert meanings.wordings(answers) == (["Paris.", "In Rome!", ""], [0, 0, 1, 0, 1, 2])
    assert meanings.wordings([]) == ([], [])


def test_meaning_is_that_of_the_first_text_that_is_near():
    # Cosines: of 10 degrees 0.985, of 20 degrees 0.940.
    texts = ["red", "crimson", "orange", "scarlet"]
    assert meanings.meanings(texts, _at(0, 10, 20, 350), alike=0.95) == [0, 0, 1, 0]
    assert meanings.meanings(texts, _at(0, 10, 20, 350), alike=0.99) == [0, 1, 2, 3]


def test_meanings_differ_when_the_numbers_do():
    texts = ["It opened in 1912.", "It was opened in 1912.", "It opened in 1913.", "1912"]
    assert meanings.meanings(texts, _at(0, 0, 0, 90)) == [0, 0, 1, 0]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Paris.", "It is the city of Paris.", True),
        ("It is the city of Paris.", "Paris.", True),
        ("I do not know.", "I'm not sure about that.", True),
        ("I do not know.", "It is Paris.", False),
        ("It is open.", "It is not open.", False),
        ("Paris.", "Parisian.", False),
    ],
)
def test_words_decide_when_vectors_are_far_apart(one, other, same):
    assert meanings.meanings([one, other], _at(0, 90)) == ([0, 0] if same else [0, 1])
