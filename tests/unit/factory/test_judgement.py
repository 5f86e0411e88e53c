from __future__ import annotations

import dataclasses

import pytest

from services.factory import judgement
from shared import answer_signals, learning_settings
from tests.unit.factory import fakes

LIMITS = learning_settings.Judgement(
    unsure_logprob=-0.2, unsure_entropy=0.5, unsure_semantic_entropy=0.7, small_talk=0.6
)
Signals = answer_signals.AnswerSignals
SURE = Signals(-0.01, 0.05, 5, False)


def reason(signals: Signals | None, small_talk: float = 0.0) -> str:
    event = dataclasses.replace(fakes.event(), signals=signals)
    return judgement.reason_against(event, small_talk, LIMITS)


@pytest.mark.parametrize(
    "signals",
    [
        None,
        dataclasses.replace(SURE, admits_ignorance=True),
        dataclasses.replace(SURE, mean_logprob=-0.21),
        dataclasses.replace(SURE, mean_entropy=0.51),
        dataclasses.replace(SURE, tokens=0),
        dataclasses.replace(SURE, semantic_entropy=0.71),
    ],
)
def test_question_is_learned_when_the_base_is_unsure(
    signals: Signals | None,
) -> None:
    assert reason(signals, 0.59) == ""


def test_nothing_is_learned_when_the_base_is_sure() -> None:
    assert "seems sure of its answer" in reason(SURE)
    assert "make teach" in reason(SURE)
    assert reason(dataclasses.replace(SURE, mean_logprob=-0.2, mean_entropy=0.5))
    assert reason(dataclasses.replace(SURE, semantic_entropy=0.7))
    assert reason(dataclasses.replace(SURE, semantic_entropy=0.0))


@pytest.mark.parametrize("signals", [None, dataclasses.replace(SURE, admits_ignorance=True)])
def test_nothing_is_learned_when_it_is_small_talk(
    signals: Signals | None,
) -> None:
    assert "small talk" in reason(signals, 0.6)


def test_everything_is_learned_when_judgement_is_switched_off() -> None:
    limits = learning_settings.Judgement(enabled=False)
    event = dataclasses.replace(fakes.event(), signals=SURE)
    assert judgement.reason_against(event, 1.0, limits) == ""
