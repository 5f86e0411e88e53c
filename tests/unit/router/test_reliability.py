"""The calibration error that the router reports of itself, on cases with a known one."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from services.router import calibration, index, profile, reliability
from tests import fake_router_peers


def test_error_is_the_weighted_gap_when_bins_differ():
    # Two answers, a bin each: 0.9 came true, and counts thrice; 0.2 did, too.
    found = reliability.calibration_error([0.9, 0.2], [1, 1], [3, 1])
    assert found == pytest.approx((3 * 0.1 + 1 * 0.8) / 4)


def test_bins_have_equally_many_answers_when_there_are_many():
    said = np.linspace(0, 1, 1500)
    found = reliability.bins(said, said > 0.5)
    assert [one.mass for one in found] == [100.0] * 15
    assert [one.probability for one in found] == sorted(one.probability for one in found)
    assert found[0].share == 0.0 and found[-1].share == 1.0


def test_error_is_unknown_when_there_are_no_answers():
    assert math.isnan(reliability.calibration_error([], []))
    assert reliability.bins([], []) == []


@pytest.fixture
def cards(question):
    """Eight cards about things that share no rare word."""
    things = ("Alvmere", "Brunwick", "Corvane", "Dorvik", "Elmstad", "Farnholm", "Grimsay", "Holt")
    found = []
    for thing in things:
        told = fake_router_peers.about(thing)
        card = profile.Card(thing.lower(), "d" * 64, "", "", told)
        found.append(profile.build(card, [question(text) for text in told]))
    return index.Index(found)


def _fit(parts):
    return calibration.fit(parts, calibration.SIGNS)


def _measure(ground, cards, fit):
    parts = calibration.together(ground.rows, calibration.observe(cards, ground.unrelated))
    return reliability.measure(cards, ground.unrelated, parts, fit(parts), fit)


def test_error_is_large_when_probabilities_are_exaggerated(ground, cards):
    def exaggerated(parts):
        """Sure of its first card whatever is asked."""
        fitted = _fit(parts)
        return calibration.Model(fitted.weights_F * 0, 4.0, fitted.ranking_F * 100)

    honest, lying = (_measure(ground, cards, fit) for fit in (_fit, exaggerated))
    assert honest.rows == lying.rows > 100
    assert honest.error < 0.15
    assert lying.error > 0.4  # Half of the questions have no card.


def test_models_never_see_the_fold_that_they_are_asked_about(ground, cards):
    observed = calibration.observe(cards, [])
    fitted = []

    def fit(parts):
        fitted.append(parts)
        return _fit(parts)

    reliability.measure(cards, ground.unrelated, [ground.rows, observed], _fit([observed]), fit)
    assert len(fitted) == 5
    for label in (0.0, 1.0):
        seen = sum((parts[1].labels_N == label).sum() for parts in fitted)
        assert seen == 4 * (observed.labels_N == label).sum()
    total = len(observed.contrasts.labels_N)
    assert sum(len(parts[1].contrasts.labels_N) for parts in fitted) == 4 * total
    assert all(set(parts[1].contrasts.labels_N) == {0.0, 1.0} for parts in fitted)


def test_cards_are_left_out_whole_when_their_rows_stand_together():
    card_of = np.repeat(np.arange(10.0), 4)
    rows = calibration.Rows(card_of[:, None], np.tile([0.0, 0.0, 1.0, 1.0], 10), np.ones(40))
    left = [set(card_of) - set(reliability._without(rows, n).features_N_F[:, 0]) for n in range(5)]
    assert left == [{0, 1}, {2, 3}, {4, 5}, {6, 7}, {8, 9}]


def test_each_example_is_asked_with_its_card_and_without_when_there_are_others(ground, cards):
    asked = reliability._of_cards(cards, _fit([ground.rows]))
    assert len(asked) == 2 * 8 * 8
    known = [one for one in asked if one.own is not None]
    nearest = calibration.FEATURES.index("nearest")
    # Its card is asked without it: nothing is as near as the example itself.
    assert len(known) == 64 and max(one.rows_K_F[0, nearest] for one in known) < 0.999
    assert all(len(one.rows_K_F) == 8 for one in known)
    assert {len(one.rows_K_F) for one in asked if one.own is None} == {7}


def test_example_is_no_stranger_when_a_twin_of_its_card_is_there(ground, cards):
    twin = dataclasses.replace(cards.profiles[0], card=profile.Card("twin", "e" * 64, "", "", ()))
    asked = reliability._of_cards(cards.changed(add=[twin]), _fit([ground.rows]))
    assert sum(one.own is None for one in asked) == 7 * 8


def test_reliability_is_unknown_when_there_are_no_cards(ground):
    none = index.Index()
    measured = reliability.measure(none, ground.unrelated, [ground.rows], _fit([ground.rows]), _fit)
    assert measured is reliability.UNKNOWN


def test_reliability_is_unknown_when_a_fold_would_have_one_label(ground, cards):
    few = reliability._without(ground.rows, 0)
    few = calibration.Rows(few.features_N_F[:1], few.labels_N[:1], few.weights_N[:1])
    model = _fit([ground.rows])
    assert reliability.measure(cards, [], [few], model, _fit) is reliability.UNKNOWN


async def test_router_tells_its_error_when_cards_come(lora_router, card_about):
    assert math.isnan(lora_router.calibration_error) and lora_router.calibration_rows == 0
    things = ("Alvmere", "Brunwick", "Corvane", "Dorvik", "Elmstad", "Farnholm")
    await lora_router.register_cards([card_about(f"c{n}", t) for n, t in enumerate(things)])
    await lora_router.settled()
    assert 0.0 <= lora_router.calibration_error < 0.15
    assert lora_router.calibration_rows > 100
