"""The calibration error that the router reports of itself, on cases with a known one."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from services.router import calibration, index, observation, profile, reliability
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
    return found


def _fit(parts):
    return calibration.fit(parts, calibration.SIGNS)


def _measure(ground, cards, fit):
    observed = observation.observe(cards, index.Index, ground.unrelated)
    return reliability.measure(ground.rows, observed, fit)


def test_error_is_large_when_probabilities_are_exaggerated(ground, cards):
    def exaggerated(parts):
        """Sure of its first card whatever is asked."""
        fitted = _fit(parts)
        return calibration.Model(fitted.weights_F * 0, 4.0, fitted.ranking_F * 100)

    honest, lying = (_measure(ground, cards, fit) for fit in (_fit, exaggerated))
    assert honest.rows == lying.rows > 100
    assert honest.error < 0.15
    assert lying.error > 0.4  # Half of the questions have no card.


def test_error_is_what_a_plain_loop_finds_when_answers_are_few(ground):
    """Two questions: one whose card comes first with 0.5 x 0.5, one that has none, with 0.5."""
    rows = calibration.Rows(
        np.array([[1.0], [0.0]]),
        np.array([1.0, 0.0]),
        np.ones(2),
        np.array([7, 9]),
        calibration.Contrasts(np.array([[0.0]]), np.ones(1), np.array([7])),
    )
    practice = dataclasses.replace(rows, questions_N=np.array([1, 2]))
    flat = calibration.Model(np.zeros(1), 0.0, np.zeros(1))
    measured = reliability.measure(practice, rows, lambda parts: flat)
    assert measured.rows == 2
    assert measured.error == pytest.approx(0.5 * 0.75 + 0.5 * 0.5)


def test_models_never_see_the_questions_that_they_are_asked(ground, cards):
    observed = observation.observe(cards, index.Index, [])
    fitted = []

    def fit(parts):
        fitted.append(set(parts[1].questions_N))
        return _fit(parts)

    reliability.measure(ground.rows, observed, fit)
    everything = set(observed.questions_N)
    asked = [everything - seen for seen in fitted]
    assert len(fitted) == 5 and set.union(*asked) == everything
    assert sum(map(len, asked)) == len(everything)


def test_reliability_is_unknown_when_there_is_nothing_to_ask(ground):
    nothing = observation.observe([], index.Index, ground.unrelated)
    assert reliability.measure(ground.rows, nothing, _fit) is reliability.UNKNOWN


async def test_router_tells_its_error_when_cards_come(lora_router, card_about):
    assert math.isnan(lora_router.calibration_error) and lora_router.calibration_rows == 0
    things = ("Alvmere", "Brunwick", "Corvane", "Dorvik", "Elmstad", "Farnholm")
    await lora_router.register_cards([card_about(f"c{n}", t) for n, t in enumerate(things)])
    await lora_router.settled()
    assert 0.0 <= lora_router.calibration_error < 0.15
    assert lora_router.calibration_rows > 100
