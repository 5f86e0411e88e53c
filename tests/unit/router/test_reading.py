"""Questions are read as those of a card's examples that ask for the same."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from services.router import profile, reading
from shared import errors
from shared.cards import manifest as manifests
from tests import fake_router_peers as peers


def _unit(*values: float) -> profile.Vectors:
    return profile.unit(np.array(values, dtype=np.float32))


def test_fact_is_found_when_the_nearest_example_asks_for_another():
    """Axis 0 is what all share, axis 1 a turn of phrase, axes 2 and 3 what is asked for."""
    examples = [
        _unit(1, 1, 0.4, 0), _unit(1, 0, 0.4, 0), _unit(1, -1, 0.4, 0),
        _unit(1, 0.3, 0, 0.4), _unit(1, 0, 0, 0.4), _unit(1, -0.3, 0, 0.4),
    ]  # fmt: skip
    facts = [7, 7, 7, 3, 3, 3]
    question = _unit(1, 1.0, 0.15, 0.3)
    nearest = facts[int(np.argmax(np.stack(examples) @ question))]
    assert (nearest, reading.Reader(np.stack(examples), facts).fact(question)) == (7, 3)


def test_every_fact_is_its_own_when_there_are_as_many_as_examples():
    rng = np.random.default_rng(0)
    examples = np.stack([_unit(*rng.normal(size=16)) for _ in range(12)])
    reader = reading.Reader(examples, range(12))
    assert [reader.fact(one) for one in examples] == list(range(12))


def test_only_fact_is_read_when_a_card_has_one_example():
    assert reading.Reader(_unit(1, 2)[None], [4]).fact(_unit(-1, 0)) == 4


def _card(**routing: object) -> profile.Card:
    record = peers.card_record("skarn", "the Skarn lighthouse")
    found = manifests.parse(record.manifest_json)
    told = manifests.RoutingProfile.model_validate(routing)
    return profile.from_manifest("skarn", "a" * 64, found.model_copy(update={"routing": told}))


def test_answers_follow_their_examples_when_some_are_empty_or_the_same():
    card = _card(
        examples=["How high?", " ", "How high? ", "Who built it?"],
        statements=["30 m", "Ann"],
        answered_by=[0, 1, 0, 1],
    )
    assert (card.examples, card.answered_by) == (("How high?", "Who built it?"), (0, 1))


def test_nothing_is_read_when_the_card_does_not_tell_what_is_asked():
    question = profile.Question("How high is it?", _unit(1, 0), {})
    example = profile.Question("How high?", _unit(1, 0), {})
    silent = _card(examples=["How high?"], statements=["30 m"])
    assert profile.build(silent, [example]).read(question) == ""
    telling = dataclasses.replace(silent, answered_by=(0,))
    assert profile.build(telling, [example]).read(question) == "How high?"


@pytest.mark.parametrize(
    ("answered_by", "named"),
    [([0], "1 entries for 2"), ([0, 2], "statement 2 of 2"), ([0, -1], "")],
)
def test_card_is_refused_when_its_answers_are_not_there(answered_by, named):
    record = peers.card_record("skarn", "the Skarn lighthouse")
    routing = {"examples": ["a?", "b?"], "statements": ["a", "b"], "answered_by": answered_by}
    text = manifests.parse(record.manifest_json).model_dump() | {"routing": routing}
    with pytest.raises(errors.CardFormatError, match=f"answered_by.*{named}"):
        manifests.parse(json.dumps(text))


async def test_card_is_read_when_only_a_part_of_its_examples_is_looked_at(lora_router):
    thing = "the Skarnholm lighthouse"
    examples = (*(f"Who painted door {n} of {thing}?" for n in range(1200)), "\ud83c")
    answered_by = (*(n % 2 for n in range(1200)), 0)
    card = profile.Card("skarn", "a" * 64, "", "", examples, ("Ann", "Bob"), answered_by)
    await lora_router.register_card(card)
    await lora_router.settled()
    decision = await lora_router.select(f"Door 8 of {thing} was painted by whom?")
    assert decision.candidates[0].reading in examples
