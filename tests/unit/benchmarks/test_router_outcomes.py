"""The router benchmark's figures on cases computed by hand, and its peers' rules."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.router import intents, outcomes, peers, rows

_TRIAL = intents.Trial(
    examples=1,
    near=False,
    cards={"a": ("about a",), "b": ("about b",)},
    inside=(("one", "a"), ("two", "a"), ("three", "b"), ("four", "b")),
    outside=("five", "six"),
)


def _outcome(score, first=("a", "b", "b", "a", "a", "b")):
    return outcomes.outcome(_TRIAL, first, score)


def test_accuracy_counts_questions_with_a_card_when_others_were_asked():
    assert _outcome([1, 1, 1, 1, 1, 1]).accuracy == 0.5


@pytest.mark.parametrize(
    ("score", "area"),
    [
        ([5, 6, 7, 8, 1, 2], 1.0),
        ([1, 2, 3, 4, 5, 6], 0.0),
        ([3, 3, 3, 3, 3, 3], 0.5),
        # Of eight pairs, six are in order and one is a tie.
        ([5, 6, 7, 2, 1, 5], 6.5 / 8),
    ],
)
def test_area_is_the_share_of_pairs_in_order_when_scores_are_given(score, area):
    assert _outcome(score).auroc == pytest.approx(area)


def test_area_under_the_curve_is_the_same_when_it_is_summed():
    rng = np.random.default_rng(0)
    said = outcomes.Outcome(
        rng.random(500) < 0.7, np.zeros(500, dtype=bool), rng.integers(0, 40, 500).astype(float)
    )
    assert float(np.trapezoid(said.curve()[1], said.curve()[0])) == pytest.approx(said.auroc)


def test_false_positives_are_counted_where_95_of_100_pass():
    inside = np.arange(120) < 100
    # The 95th of the hundred scores 6; of the twenty, those with 6 and more pass.
    score = np.concatenate([np.arange(1, 101), np.arange(20)]).astype(float)
    said = outcomes.Outcome(inside, inside, score)
    assert said.fpr95 == 14 / 20


def test_calibration_error_is_the_gap_when_all_questions_share_a_bin():
    said = outcomes.routed(
        _TRIAL, list("abbaab"), [1] * 6, [0.9] * 6, [False, True, False, False, True, False]
    )
    # Six bins of one question: two right ones are 0.1 off, four wrong ones 0.9.
    assert said.ece == pytest.approx((2 * 0.1 + 4 * 0.9) / 6)
    assert (said.in_scope_recall, said.out_scope_recall) == (0.75, 0.5)


def test_calibration_error_vanishes_when_shares_are_as_told():
    inside = np.ones(1500, dtype=bool)
    probability = np.repeat(np.arange(15) / 20, 100)
    right = np.concatenate([np.arange(100) < 5 * step for step in range(15)])
    said = outcomes.Routed(inside, right, probability, probability, ~inside)
    assert said.ece == pytest.approx(0.0, abs=1e-12)


_VECTORS = {
    "a1": (1.0, 0.0, 0.0), "a2": (0.9, 0.1, 0.0), "a3": (0.0, 0.0, 1.0), "a4": (0.0, 0.1, 0.9),
    "b1": (0.8, 0.2, 0.0), "b2": (0.0, 1.0, 0.0), "b3": (0.1, 0.9, 0.0), "asked": (1.0, 0.0, 0.0),
}  # fmt: skip


def _lookup(texts):
    found = np.array([_VECTORS[text] for text in texts], dtype=np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def _peers_trial():
    cards = {"a": ("a1", "a2", "a3", "a4"), "b": ("b1", "b2", "b3")}
    return intents.Trial(3, False, cards, (("asked", "a"),), ())


def test_mean_of_the_five_nearest_decides_when_the_rule_is_computed_here():
    trial = _peers_trial()
    similar = _lookup(trial.cards["a"]) @ _lookup(["asked"])[0]
    others = _lookup(trial.cards["b"]) @ _lookup(["asked"])[0]
    # The five nearest are a1, a2, b1, b3 and one of those at a right angle, a3 by its place.
    means = {"a": (similar[0] + similar[1] + 0) / 3, "b": (others[0] + others[2]) / 2}
    said = peers.top_five_mean(trial, _lookup)
    assert said.score_N[0] == pytest.approx(max(means.values()), abs=1e-6)
    assert said.accuracy == float(max(means, key=means.__getitem__) == "a")


def test_nearest_mean_decides_when_the_centroid_is_asked():
    trial = _peers_trial()
    said = peers.centroid(trial, _lookup)
    mean = _lookup(trial.cards["a"]).mean(axis=0)
    assert said.accuracy == 1.0
    assert said.score_N[0] == pytest.approx(mean[0] / np.linalg.norm(mean), abs=1e-6)


def test_rule_is_labelled_as_computed_here_when_the_peer_can_not_be_installed(monkeypatch):
    def unreachable(folder):
        raise OSError("no network")

    monkeypatch.setattr(peers, "_installed", unreachable)
    answered = peers.semantic_router([_peers_trial()], _lookup)
    assert "computed here" in answered.name and "no network" in answered.name
    assert answered.outcomes[0].score_N == peers.top_five_mean(_peers_trial(), _lookup).score_N


def test_every_row_is_there_with_its_reason_when_the_data_set_is_not():
    found = {row.name: row for row in rows.of([], "", "no data")}
    for examples in (100, 10, 5):
        for name in ("accuracy", "auroc", "fpr95", "ece", "in_scope_recall", "out_scope_recall"):
            row = found[f"{name}_{examples}"]
            assert (row.value, row.note) == (None, "no data")
            assert row.least is not None or row.most is not None


def test_ratio_is_above_one_when_there_are_fewer_false_positives_than_the_peer_has():
    routed = outcomes.routed(_TRIAL, list("aabbab"), [5, 6, 7, 8, 1, 2], [0.5] * 6, [False] * 6)
    worse = _outcome([5, 6, 7, 8, 9, 2])
    tried = rows.Tried(
        intents.Trial(5, False, _TRIAL.cards, _TRIAL.inside, _TRIAL.outside), routed, worse, worse
    )
    found = {row.name: row for row in rows.of([tried], "the peer")}
    assert (found["accuracy_5"].value, found["accuracy_5"].peer_value) == (1.0, 0.5)
    assert found["accuracy_5"].ratio == 2.0
    assert found["fpr95_5"].reached and found["fpr95_5"].peer_value == 0.5
    assert found["accuracy_10"].value is None
