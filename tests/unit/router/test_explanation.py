"""What the router says of its decisions, against the decisions themselves."""

from __future__ import annotations

import asyncio
import dataclasses
import threading

import numpy as np
import pytest

from services.router import calibration, explanation
from shared import errors
from tests import fake_routers

SKARN, TARN = "the Skarnholm lighthouse", "the Tarnvik viaduct"
QUERY = f"Which height has {SKARN}?"


@pytest.fixture(scope="module")
def two(ground):
    """One for all tests, which only ask: fitting takes a moment."""

    async def make():
        about = fake_routers.card_about
        made = fake_routers.lora_router(ground)
        await made.register_cards([about("skarn", SKARN), about("tarn", TARN)])
        await made.settled()
        return made

    return asyncio.run(make())


@pytest.mark.parametrize("query", [QUERY, "How tall is the Brunwick aqueduct?", "Hello there!"])
async def test_explanation_is_of_the_same_decision_when_the_question_is(two, query):
    decision, found = await two.select(query, top_k=2), await two.explain(query, top_k=2)
    assert found.confidence == decision.confidence
    assert found.none_probability == decision.none_probability
    assert [(c.card, c.probability) for c in found.cards] == [
        (c.card, c.probability) for c in decision.candidates
    ]
    assert (found.reason is explanation.Reason.FITS) is not decision.dissonance
    assert found.cards[0].fits == pytest.approx(decision.confidence)


async def test_pieces_add_up_when_a_card_is_taken_apart(two):
    found = await two.explain(QUERY, top_k=2)
    for card in found.cards:
        total = card.start + sum(one.log_odds for one in card.contributions) + card.rest
        assert total == pytest.approx(card.log_odds)
        assert card.rest == pytest.approx(0.0, abs=1e-9)
        names = {one.feature for one in card.contributions}
        assert names == {*calibration.FEATURES, "anchor squared"}
    first, second = found.cards
    assert sum(one.against_next for one in first.contributions) == pytest.approx(found.lead)
    assert all(one.against_next is None for one in second.contributions)


@pytest.mark.parametrize("query", [QUERY, "How tall is the Brunwick aqueduct?"])
async def test_decision_flips_when_the_threshold_passes_the_one_told(two, query):
    flips_above = (await two.explain(query)).flips_above
    assert not (await two.select(query, threshold=flips_above)).dissonance
    assert (await two.select(query, threshold=flips_above + 1e-9)).dissonance


@pytest.mark.parametrize("query", [QUERY, "How tall is the Brunwick aqueduct?"])
async def test_decision_flips_when_a_feature_has_the_value_told(two, query):
    card = (await two.explain(query)).cards[0]
    fitted, telling = two._fitted, [c for c in card.contributions if c.flips_at is not None]
    row_F = {one.feature: one.value for one in card.contributions}
    assert telling
    for one in telling:
        changed = row_F | {one.feature: one.flips_at}
        columns = (*calibration.FEATURES, "anchor squared")
        logit = fitted.model.weights_F @ [changed[name] for name in columns] + fitted.model.bias
        assert calibration.sigmoid(logit) == pytest.approx(0.4)


async def test_nearest_examples_and_words_are_told_when_a_card_is_taken_apart(two):
    card = (await two.explain(f"Which height has {SKARN} at low tide?")).cards[0]
    cosines = [one.cosine for one in card.examples]
    assert len(cosines) == 3 and cosines == sorted(cosines, reverse=True)
    assert all(SKARN in one.text for one in card.examples)
    assert "skarnholm" in card.known_words
    assert "tide" in card.foreign_words and "skarnholm" not in card.foreign_words


async def test_second_card_is_told_of_when_only_one_is_taken_apart(two):
    found = await two.explain(QUERY)
    assert len(found.cards) == 1
    assert found.lead > 0 and found.second_fits is False
    assert found.number_of_cards == 2


async def test_example_fits_whatever_its_features_are_when_it_is_asked(two):
    card = (await two.explain(f"Who built {SKARN}?")).cards[0]
    assert card.is_example
    assert all(one.flips_at is None for one in card.contributions)


async def test_explanation_says_so_when_there_are_no_cards(lora_router):
    found = await lora_router.explain(QUERY)
    assert found.reason is explanation.Reason.NO_CARDS
    assert (found.cards, found.number_of_cards, found.confidence) == ((), 0, 0.0)
    assert (found.flips_above, found.margin, found.lead, found.second_fits) == (None,) * 4


async def test_explanation_says_so_when_the_question_has_no_words(two):
    found = await two.explain("?!")
    assert found.reason is explanation.Reason.NO_WORDS
    assert (found.cards, found.confidence) == ((), 0.0)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
async def test_no_margin_is_told_when_nothing_can_miss_or_reach_the_threshold(two, threshold):
    found = await two.explain(QUERY, threshold=threshold)
    assert found.margin is None
    assert all(one.flips_at is None for one in found.cards[0].contributions)


async def test_questions_are_answered_when_an_explanation_takes_long(two, monkeypatch):
    entered, may_go = threading.Event(), threading.Event()

    def slow(*given):
        entered.set()
        assert may_go.wait(20)
        return explain(*given)

    explain = explanation.explain
    monkeypatch.setattr(explanation, "explain", slow)
    asked = asyncio.create_task(two.explain(QUERY))
    assert await asyncio.to_thread(entered.wait, 20)
    decision = await two.select(QUERY)
    assert not asked.done()
    may_go.set()
    assert (await asked).confidence == decision.confidence


async def test_argument_is_named_when_an_explanation_is_asked_for_out_of_range(two):
    with pytest.raises(errors.InvalidInputError, match="top_k"):
        await two.explain(QUERY, top_k=0)


async def test_every_piece_of_evidence_is_named_when_a_decision_is_explained(two):
    (first, *_) = (await two.explain(QUERY)).cards
    named = [contribution.feature for contribution in first.contributions]
    assert sorted(named) == sorted(calibration.COLUMNS)


def test_ordinary_evidence_lies_halfway_when_labels_differ():
    rows = calibration.Rows(
        np.array([[0.0], [2.0], [10.0]]),
        np.array([0.0, 0.0, 1.0]),
        np.array([1.0, 3.0, 1.0]),
        np.arange(3),
        calibration.Contrasts(np.ones((1, 1)), np.ones(1), np.array([2])),
    )
    usual = explanation.typical([rows])
    assert usual.mean_F == pytest.approx([(1.5 + 10.0) / 2])
    assert (usual.least_F[0], usual.most_F[0]) == (0.0, 10.0)


def test_explanations_are_frozen_when_handed_out():
    with pytest.raises(dataclasses.FrozenInstanceError):
        explanation.Example("q", 1.0).cosine = 0.0
