from __future__ import annotations

import asyncio
import dataclasses

import pytest

from services.router import decision as decisions
from services.router import index, profile
from shared import errors
from tests import fake_router_peers, fake_routers

SKARN, TARN = "the Skarnholm lighthouse", "the Tarnvik viaduct"


async def test_card_is_chosen_when_the_question_is_a_rewording(lora_router, card_about):
    await lora_router.register_cards([card_about("skarn", SKARN), card_about("tarn", TARN)])
    await lora_router.settled()
    decision = await lora_router.select(f"Which height has {SKARN}?", top_k=2)
    assert [c.card.split("@")[0] for c in decision.candidates] == ["skarn", "tarn"]
    assert not decision.dissonance
    assert decision.candidates[0].nearest_example in fake_router_peers.about(SKARN)


async def test_none_fits_when_the_same_is_asked_about_something_else(lora_router, card_about):
    await lora_router.register_card(card_about("skarn", SKARN))
    await lora_router.settled()
    decision = await lora_router.select("How tall is the Brunwick aqueduct?")
    assert decision.dissonance
    assert decision.confidence < 0.4


async def test_none_fits_when_there_are_no_cards(lora_router):
    decision = await lora_router.select("How tall is it?")
    assert (decision.candidates, decision.none_probability, decision.confidence) == ((), 1.0, 0.0)
    assert decision.dissonance


async def test_probabilities_sum_to_one_when_none_is_counted(lora_router, card_about):
    things = ("Alvmere", "Brunwick", "Corvane", SKARN)
    await lora_router.register_cards([card_about(f"c{n}", t) for n, t in enumerate(things)])
    decision = await lora_router.select(f"Who built {SKARN}?", top_k=10)
    total = decision.none_probability + sum(c.probability for c in decision.candidates)
    assert total == pytest.approx(1.0)
    assert len(decision.candidates) == len(things)


async def test_confidence_is_not_split_when_cards_are_near_duplicates(lora_router, card_about):
    await lora_router.register_card(card_about("one", SKARN))
    await lora_router.settled()
    alone = await lora_router.select(f"Which height has {SKARN}?")
    await lora_router.register_cards([card_about(f"twin-{n}", SKARN) for n in range(4)])
    await lora_router.settled()
    among_twins = await lora_router.select(f"Which height has {SKARN}?", top_k=5)
    assert alone.confidence > 0.5
    assert among_twins.confidence == pytest.approx(alone.confidence, abs=0.1)
    shares = [c.probability for c in among_twins.candidates]
    assert shares == pytest.approx([among_twins.confidence / 5] * 5)


async def test_old_version_is_gone_when_a_new_digest_is_registered(lora_router, card_about):
    await lora_router.register_card(card_about("skarn", SKARN, "1"))
    await lora_router.register_card(card_about("skarn", SKARN, "2"))
    assert lora_router.cards == (card_about("skarn", SKARN, "2").identity,)


async def test_no_moment_without_the_name_when_versions_are_swapped(lora_router, card_about):
    await lora_router.register_card(card_about("skarn", SKARN, "0"))

    async def swap() -> None:
        for version in range(1, 20):
            await lora_router.register_card(card_about("skarn", SKARN, str(version)))

    swapping = asyncio.create_task(swap())
    seen = set()
    while not swapping.done():
        seen.add(len((await lora_router.select(f"Who built {SKARN}?", top_k=5)).candidates))
        await asyncio.sleep(0)
    await swapping
    assert seen == {1}


async def test_card_is_forgotten_when_unregistered(lora_router, card_about):
    await lora_router.register_card(card_about("skarn", SKARN))
    await lora_router.unregister_card("skarn")
    await lora_router.unregister_card("never-there")
    assert lora_router.cards == ()


async def test_card_is_found_by_description_when_it_is_virtual(lora_router):
    await lora_router.register_virtual_candidate(
        "skarn", "a" * 64, "History and height of the Skarnholm lighthouse"
    )
    await lora_router.settled()
    fitting = await lora_router.select("What is the height of the Skarnholm lighthouse?")
    other = await lora_router.select("What is the height of the Brunwick aqueduct?")
    assert fitting.candidates[0].card == f"skarn@{'a' * 64}"
    assert fitting.candidates[0].nearest_example == ""
    assert fitting.confidence > other.confidence
    assert fake_routers.names(lora_router) == set()


async def test_examples_win_when_a_virtual_card_becomes_real(lora_router, card_about):
    card = card_about("skarn", SKARN)
    await lora_router.register_virtual_candidate("skarn", card.digest, "About a lighthouse")
    await lora_router.register_card(card)
    await lora_router.register_virtual_candidate("skarn", card.digest, "About a lighthouse")
    decision = await lora_router.select(f"Who built {SKARN}?")
    assert decision.candidates[0].nearest_example == f"Who built {SKARN}?"
    assert fake_routers.names(lora_router) == {"skarn"}


async def test_threshold_decides_when_given(lora_router, card_about):
    await lora_router.register_card(card_about("skarn", SKARN))
    query = f"Which height has {SKARN}?"
    assert not (await lora_router.select(query, threshold=0.0)).dissonance
    assert (await lora_router.select(query, threshold=1.0)).dissonance


@pytest.mark.parametrize(
    ("query", "top_k", "threshold", "named"),
    [
        ("", 1, None, "query"),
        ("  \n", 1, None, "query"),
        ("x" * 8_001, 1, None, "query"),
        ("x", 0, None, "top_k"),
        ("x", -3, None, "top_k"),
        ("x", 1, 1.5, "threshold"),
        ("x", 1, float("nan"), "threshold"),
    ],
)
async def test_argument_is_named_when_out_of_range(lora_router, query, top_k, threshold, named):
    with pytest.raises(errors.InvalidInputError, match=named):
        await lora_router.select(query, top_k, threshold)


async def test_zero_vector_is_answered_when_a_query_has_no_words(lora_router, card_about):
    await lora_router.register_card(card_about("skarn", SKARN))
    decision = await lora_router.select("?!")
    assert 0.0 <= decision.confidence < 0.4


def test_description_stands_in_when_a_manifest_has_no_examples():
    from shared.cards import manifest as manifests

    record = fake_router_peers.card_record("skarn", SKARN)
    manifest = manifests.parse(record.manifest_json).model_copy(update={"routing": None})
    card = profile.from_manifest("skarn", "a" * 64, manifest)
    assert card.examples == (f"Facts about {SKARN}",)


def test_decisions_are_frozen_when_handed_out():
    decision = decisions.Decision("q", (), 1.0, 0.0, 0.4, True)
    with pytest.raises(AttributeError):
        decision.confidence = 1.0


async def test_question_is_routed_when_it_is_an_example_that_names_nothing(lora_router, card_about):
    nameless = "How many people drowned?"
    card = card_about("skarn", SKARN)
    card = dataclasses.replace(card, examples=(*card.examples, nameless))
    await lora_router.register_card(card)
    await lora_router.register_card(card_about("tarn", "the Tarn Head lighthouse"))
    await lora_router.settled()
    for text in (nameless, "how many people  drowned"):
        decision = await lora_router.select(text)
        assert decision.candidates[0].card == card.identity
        assert decision.confidence > 0.9
        assert decision.candidates[0].nearest_example == nameless


async def test_signs_that_tell_things_apart_count_when_examples_are_compared(question):
    sharp = profile.Card("sharp", "d" * 64, "", "", ("What is C#?",))
    found = index.Index([profile.build(sharp, [question("What is C#?")])])
    assert found.search(question("what is C#")).verbatim == [1.0]
    assert found.search(question("What is C++?")).verbatim == [0.0]


async def test_new_version_stays_when_the_old_one_is_forgotten_while_it_comes(ground, card_about):
    entered, may_go = asyncio.Event(), asyncio.Event()

    async def slow(texts):
        entered.set()
        await may_go.wait()
        return fake_routers.EMBEDDER.embed(texts)

    old, new = card_about("skarn", SKARN), card_about("skarn", SKARN, "2")
    made = fake_routers.lora_router(ground, embed=slow)
    may_go.set()
    await made.register_card(old)
    entered.clear()
    may_go.clear()
    coming = asyncio.create_task(made.register_card(new))
    await entered.wait()
    going = asyncio.create_task(made.unregister_version(old.name, old.digest))
    await asyncio.sleep(0)
    may_go.set()
    await asyncio.gather(coming, going)
    assert made.cards == (new.identity,)
    await made.close()
