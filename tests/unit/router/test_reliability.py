"""The calibration error that the router reports of itself, on cases with a known one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from services.router import calibration, reliability


def _rows(logits, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4000, 1))
    y = (rng.random(4000) < 1 / (1 + np.exp(-logits(x[:, 0])))).astype(float)
    return calibration.Rows(x + shift, y, np.ones(4000))


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


def test_error_is_small_when_the_model_is_the_true_one():
    found = reliability.measure([_rows(lambda x: 2 * x, 0)], calibration.fit)
    assert found.rows == 4000
    assert found.error < 0.03


def test_error_is_large_when_probabilities_are_exaggerated():
    def exaggerated(parts):
        fitted = calibration.fit(parts)
        return calibration.Model(fitted.weights_F * 5, fitted.bias * 5, fitted.ranking_F)

    rows = _rows(lambda x: 2 * x, 0)
    honest = reliability.measure([rows], calibration.fit).error
    assert reliability.measure([rows], exaggerated).error > 0.1 > 3 * honest


def test_error_is_of_rows_that_were_not_seen_when_a_model_remembers():
    """A model that knows every row that it was fitted to is right about none of the others."""
    rng = np.random.default_rng(1)
    rows = calibration.Rows(np.eye(60), (rng.random(60) < 0.5).astype(float), np.ones(60))

    def remembers(parts):
        weights_F = sum(part.features_N_F.T @ (20 * part.labels_N - 10) for part in parts)
        return calibration.Model(weights_F, 0.0, weights_F)

    # Whatever is said of an unknown row is 0.5, of a known one 0 or 1.
    known = calibration.sigmoid(rows.features_N_F @ remembers([rows]).weights_F)
    assert reliability.calibration_error(known, rows.labels_N) < 0.001
    assert reliability.measure([rows], remembers).error > 0.2


def test_cards_are_left_out_whole_when_their_rows_stand_together():
    asked = []

    def fit(parts):
        asked.append(np.concatenate([part.features_N_F[:, 0] for part in parts]))
        return calibration.fit(parts)

    card_of = np.repeat(np.arange(10.0), 4)
    rows = calibration.Rows(card_of[:, None], np.tile([0.0, 0.0, 1.0, 1.0], 10), np.ones(40))
    reliability.measure([rows], fit)
    assert [sorted(set(range(10)) - set(seen)) for seen in asked] == [
        [0, 1], [2, 3], [4, 5], [6, 7], [8, 9]
    ]  # fmt: skip


@pytest.mark.parametrize("labels", [[], [0.0] * 20, [1.0] * 20, [0.0, 1.0]])
def test_reliability_is_unknown_when_a_fold_would_have_one_label(labels):
    rows = calibration.Rows(np.zeros((len(labels), 2)), np.array(labels), np.ones(len(labels)))
    assert reliability.measure([rows], calibration.fit) is reliability.UNKNOWN


async def test_router_tells_its_error_when_cards_come(lora_router, card_about):
    practised = (lora_router.calibration_error, lora_router.calibration_rows)
    things = ("Alvmere", "Brunwick", "Corvane", "Dorvik", "Elmstad", "Farnholm")
    await lora_router.register_cards([card_about(f"c{n}", t) for n, t in enumerate(things)])
    await lora_router.settled()
    assert 0.0 < practised[0] < 0.2
    assert 0.0 < lora_router.calibration_error < 0.2
    assert lora_router.calibration_rows > practised[1] > 0
