"""Cards and questions out of a data set of CLINC150's form."""

from __future__ import annotations

import json

import pytest

from benchmarks.router import intents
from shared import errors

_INTENTS = 50


@pytest.fixture
def folder(tmp_path):
    train = [[f"train {n} of {i}", f"intent_{i}"] for i in range(_INTENTS) for n in range(100)]
    content = {
        "train": train,
        "val": [["validation", "intent_0"]],
        "test": [[f"test of {i}", f"intent_{i}"] for i in range(_INTENTS)],
        "oos_train": [["forbidden", "oos"]],
        "oos_val": [["forbidden too", "oos"]],
        "oos_test": [["far away", "oos"], ["farther", "oos"]],
    }
    (tmp_path / intents.FILE).write_text(json.dumps(content), encoding="utf-8")
    return tmp_path


def test_trials_are_those_of_the_last_run_when_made_again(folder):
    first, second = (intents.trials(intents.load(str(folder))) for _ in range(2))
    assert first == second


def test_no_question_of_another_split_is_used_when_trials_are_made(folder):
    texts = {text for trial in intents.trials(intents.load(str(folder))) for text in trial.texts}
    assert texts.isdisjoint({"validation", "forbidden", "forbidden too"})


def test_samples_differ_without_repeats_when_they_are_smaller_than_the_set(folder):
    trials = [t for t in intents.trials(intents.load(str(folder))) if not t.near]
    assert [t.examples for t in trials] == [100, 10, 10, 10, 5, 5, 5]
    for trial in trials:
        assert all(len(set(told)) == trial.examples for told in trial.cards.values())
    tens = [frozenset(t.cards["intent_7"]) for t in trials if t.examples == 10]
    assert len(set(tens)) == 3
    assert {len(t.outside) for t in trials} == {2}


def test_left_out_intents_are_asked_and_have_no_card_when_misses_are_near(folder):
    for trial in (t for t in intents.trials(intents.load(str(folder))) if t.near):
        assert len(trial.cards) == _INTENTS - 40
        assert {card for _, card in trial.inside} == set(trial.cards)
        assert len(trial.outside) == 40
        assert not {f"test of {card.split('_')[1]}" for card in trial.cards} & set(trial.outside)


def test_error_names_the_variable_when_it_is_not_set():
    with pytest.raises(errors.ConfigError, match="SKILLMESH_DATA is not set"):
        intents.load(None)


def test_error_names_the_file_when_it_is_another(tmp_path):
    (tmp_path / intents.FILE).write_text('{"train": []}', encoding="utf-8")
    with pytest.raises(errors.ConfigError, match="can't be read as CLINC150"):
        intents.load(str(tmp_path))
