from __future__ import annotations

import numpy as np
import pytest

from services.router import calibration, index, profile


def _rows(x, y, w=None) -> calibration.Rows:
    x = np.asarray(x, dtype=np.float64)
    return calibration.Rows(
        x, np.asarray(y, dtype=np.float64), np.ones(len(x)) if w is None else np.asarray(w)
    )


def test_gradient_is_zero_when_fitted():
    """The maximum of the penalised likelihood, checked against its own definition."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    y = (x @ [2.0, -1.0, 0.0] + rng.normal(size=200) > 0.3).astype(float)
    model = calibration.fit([_rows(x, y)])
    scale = x.std(axis=0)
    p = 1 / (1 + np.exp(-(x @ model.weights_F + model.bias)))
    weight = np.where(y > 0, 0.5 / y.sum(), 0.5 / (1 - y).sum()) * len(y)
    z = (x - x.mean(axis=0)) / scale
    gradient = z.T @ (weight * (y - p)) - model.weights_F * scale
    assert gradient == pytest.approx([0.0, 0.0, 0.0], abs=1e-6)
    assert model.weights_F[0] > 0 > model.weights_F[1]


def test_fit_stays_finite_when_classes_are_separable():
    model = calibration.fit([_rows([[0.0], [0.1], [0.9], [1.0]], [0, 0, 1, 1])])
    assert np.isfinite(model.weights_F).all()
    assert model.weights_F[0] > 0


def test_rows_count_less_when_their_weight_is_lower():
    x, y = [[0.0], [1.0], [1.0], [1.0]], [0, 1, 0, 1]
    doubtful = calibration.fit([_rows(x, y, [1.0, 1.0, 1.0, 1.0])])
    surer = calibration.fit([_rows(x, y, [1.0, 1.0, 0.1, 1.0])])
    assert surer.weights_F[0] + surer.bias > doubtful.weights_F[0] + doubtful.bias


def test_sigmoid_is_exact_when_far_out():
    assert calibration.sigmoid(np.array([-800.0, 0.0, 800.0])) == pytest.approx([0.0, 0.5, 1.0])


def test_positives_leave_the_example_itself_out_when_a_card_is_observed(question, ground):
    examples = [question("How tall is Skarnholm?"), question("Who built Skarnholm?")]
    card = profile.Card("a", "d" * 64, "", "", tuple(e.text for e in examples))
    rows = calibration.observe(index.Index([profile.build(card, examples)]), ground.unrelated)
    positives = rows.features_N_F[rows.labels_N == 1]
    nearest = positives[:, calibration.FEATURES.index("nearest")]
    assert len(positives) == 2
    assert nearest == pytest.approx([examples[0].vector @ examples[1].vector] * 2, abs=1e-6)


def test_twins_are_no_negatives_when_cards_overlap(question):
    texts = ["How tall is Skarnholm?", "Who built Skarnholm?"]
    examples = [question(text) for text in texts]
    twins = [
        profile.build(profile.Card(name, "d" * 64, "", "", tuple(texts)), examples)
        for name in ("a", "b")
    ]
    rows = calibration.observe(index.Index(twins), [])
    assert rows.labels_N.min() == 1.0


def test_nothing_is_observed_when_there_are_no_cards(ground):
    assert len(calibration.observe(index.Index(), ground.unrelated).labels_N) == 0


def test_practice_has_both_labels_when_no_card_is_known(ground):
    assert set(ground.rows.labels_N) == {0.0, 1.0}
