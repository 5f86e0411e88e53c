from __future__ import annotations

import numpy as np
import pytest

from services.router import calibration


def _rows(x, y, w=None, questions=None, differences=None, of=None) -> calibration.Rows:
    x = np.asarray(x, dtype=np.float64)
    d = np.ones((1, x.shape[1])) if differences is None else np.asarray(differences, dtype=float)
    return calibration.Rows(
        x,
        np.asarray(y, dtype=np.float64),
        np.ones(len(x)) if w is None else np.asarray(w),
        np.arange(len(x)) if questions is None else np.asarray(questions),
        calibration.Contrasts(d, np.ones(len(d)), np.arange(len(d)) if of is None else of),
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
    assert np.isfinite(model.weights_F).all() and np.isfinite(model.ranking_F).all()
    assert model.weights_F[0] > 0


def test_rows_count_less_when_their_weight_is_lower():
    x, y = [[0.0], [1.0], [1.0], [1.0]], [0, 1, 0, 1]
    doubtful = calibration.fit([_rows(x, y, [1.0, 1.0, 1.0, 1.0])])
    surer = calibration.fit([_rows(x, y, [1.0, 1.0, 0.1, 1.0])])
    assert surer.weights_F[0] + surer.bias > doubtful.weights_F[0] + doubtful.bias


def test_sigmoid_is_exact_when_far_out():
    assert calibration.sigmoid(np.array([-800.0, 0.0, 800.0])) == pytest.approx([0.0, 0.5, 1.0])


def test_shares_are_those_of_a_conditional_logit_when_cards_are_ranked():
    """Questions drawn from the model itself: its weights are found again."""
    rng = np.random.default_rng(1)
    true = np.array([3.0, -2.0])
    differences, of = [], []
    for question in range(3000):
        cards = rng.normal(size=(6, 2))
        odds = np.exp(cards @ true)
        own = rng.choice(6, p=odds / odds.sum())
        differences += list(cards[own] - np.delete(cards, own, axis=0))
        of += [question] * 5
    parts = [_rows(np.eye(2), [0, 1], differences=differences, of=np.array(of))]
    assert calibration.fit(parts).ranking_F == pytest.approx(true, rel=0.1)
    sharper = calibration.fit(parts, sharpening=1.25).ranking_F
    assert sharper == pytest.approx(1.25 * true, rel=0.1)


def test_questions_of_two_parts_stay_apart_when_their_numbers_are_the_same():
    rng = np.random.default_rng(2)
    both = rng.normal(loc=[1.0, 0.5], size=(40, 2))
    of = np.repeat(np.arange(20), 2)
    one = calibration.fit([_rows(np.eye(2), [0, 1], differences=both, of=of)])
    halves = [
        _rows(np.eye(2), [0, 1], differences=half, of=np.repeat(np.arange(10), 2))
        for half in (both[:20], both[20:])
    ]
    assert calibration.fit(halves).ranking_F == pytest.approx(one.ranking_F)


def test_weight_is_left_out_when_its_sign_would_be_wrong():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(300, 2))
    y = (x @ [2.0, -1.0] + rng.normal(size=300) > 0).astype(float)
    rows = _rows(x, y, differences=np.abs(x) * [1.0, -1.0])
    model = calibration.fit([rows], signs_F=[1.0, 1.0])
    assert model.weights_F[0] > 0 == model.weights_F[1]
    assert model.ranking_F[0] > 0 == model.ranking_F[1]


def test_best_wrong_card_alone_decides_when_a_question_has_several():
    rows = _rows([[0.9], [0.2], [0.5], [0.7], [0.1]], [1, 0, 0, 0, 1], questions=[0, 0, 0, 1, 1])
    assert list(rows.decisive(np.array([1.0]))) == [True, False, True, True, True]
    assert list(rows.decisive(np.array([-1.0]))) == [True, True, False, True, True]


def test_fit_ends_with_an_error_when_a_feature_is_no_number():
    rows = _rows([[0.0], [1.0], [1.0], [np.nan]], [0, 1, 0, 1])
    with pytest.raises(FloatingPointError, match="NaN"):
        calibration.fit([rows], [1.0])


def test_feature_says_nothing_when_rows_are_without_it():
    width = len(calibration.SIGNS)
    rows = _rows(np.ones((2, width)), [0, 1], differences=np.ones((3, width)))
    blind = rows.without("boundary")
    at = calibration.FEATURES.index("boundary")
    assert not blind.features_N_F[:, at].any() and not blind.contrasts.differences_M_F[:, at].any()
    assert blind.features_N_F.sum() == 2 * (width - 1)


@pytest.mark.parametrize(("apart", "raised"), [(4.0, True), (0.3, False)])
def test_odds_are_raised_only_when_questions_without_a_card_stay_refused(apart, raised):
    rng = np.random.default_rng(3)
    labels = np.repeat([1, 0], 400)
    rows = _rows(rng.normal(size=(800, 1)) + apart * labels[:, None], labels)
    plain = calibration.fit([rows])
    generous = calibration.fit([rows], most_odds=3.0)
    assert (generous.bias > plain.bias) is raised
    assert generous.bias <= plain.bias + np.log(3.0) + 1e-9
    x = rows.features_N_F[labels == 0] @ generous.weights_F + generous.bias
    if raised:
        assert (calibration.sigmoid(x) < 0.4).mean() >= 0.849


def test_few_questions_of_cards_raise_the_odds_less_when_there_are_others():
    few, many = (_rows(np.zeros((n, 1)), np.ones(n)) for n in (10, 1000))
    assert 1.0 < calibration.most_odds(few) < 1.1 < 2.2 < calibration.most_odds(many) < 3.0
