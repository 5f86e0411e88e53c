"""Cards that are none to an asker: neither candidates nor part of an explanation."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from services.router import explanation, router
from tests import fake_routers

SKARN, TARN = "the Skarn lighthouse", "the Tarn viaduct"
QUESTION = f"Which height has {SKARN}?"


@pytest.fixture
async def two(lora_router: router.LoRARouter):
    """A router with a card about each thing, and their identities."""
    cards = [fake_routers.card_about("skarn", SKARN), fake_routers.card_about("tarn", TARN)]
    await lora_router.register_cards(cards)
    await lora_router.settled()
    return lora_router, [card.identity for card in cards]


async def test_next_one_is_first_when_the_best_is_hidden(two):
    asked, (skarn, tarn) = two
    seen = await asked.select(QUESTION, top_k=5, hidden=lambda: {skarn})
    plain = await asked.select(QUESTION, top_k=5)
    assert [one.card for one in plain.candidates] == [skarn, tarn]
    assert plain.hidden_confidence == 0.0
    assert [one.card for one in seen.candidates] == [tarn]
    assert seen.confidence < 0.4 < plain.confidence
    assert seen.hidden_confidence == pytest.approx(plain.confidence)
    total = seen.none_probability + sum(one.probability for one in seen.candidates)
    assert total == pytest.approx(1.0)


async def test_twin_answers_when_the_other_one_is_hidden(lora_router):
    twins = [fake_routers.card_about(name, SKARN) for name in ("ours", "everybodys")]
    await lora_router.register_cards(twins)
    await lora_router.settled()
    ours, everybodys = (card.identity for card in twins)
    for hidden, seen in ((ours, everybodys), (everybodys, ours)):
        found = await lora_router.select(QUESTION, hidden=lambda hidden=hidden: {hidden})
        assert [one.card for one in found.candidates] == [seen]
        assert not found.dissonance
        assert found.candidates[0].read_as


async def test_asker_is_as_without_cards_when_all_are_hidden(two):
    asked, identities = two
    found = await asked.select(QUESTION, top_k=3, hidden=lambda: identities)
    assert (found.candidates, found.confidence, found.dissonance) == ((), 0.0, True)
    told = await asked.explain(QUESTION, top_k=3, hidden=lambda: identities)
    assert (told.cards, told.reason) == ((), explanation.Reason.NO_CARDS)
    assert (told.flips_above, told.margin, told.lead, told.second_fits) == (None,) * 4


async def test_explanation_is_of_what_is_left_when_the_best_is_hidden(two):
    asked, (skarn, tarn) = two
    told = await asked.explain(QUESTION, top_k=3, hidden=lambda: {skarn})
    assert [one.card for one in told.cards] == [tarn]
    assert told.reason is explanation.Reason.TOO_UNSURE
    assert (told.lead, told.second_fits) == (None, None)


async def test_card_is_hidden_when_it_came_while_the_question_was_embedded(ground):
    embedding, embedded = asyncio.Event(), asyncio.Event()

    async def slowly(text: str):
        embedding.set()
        await embedded.wait()
        return await fake_routers.question_vector(text)

    asked = fake_routers.lora_router(ground, embed_query=slowly)
    hidden: set[str] = set()
    answer = asyncio.create_task(asked.select(QUESTION, hidden=lambda: hidden))
    await embedding.wait()
    card = fake_routers.card_about("skarn", SKARN)
    hidden.add(card.identity)
    await asked.register_card(card)
    embedded.set()
    assert (await answer).candidates == ()
    await asked.close()


async def test_card_is_found_behind_hidden_ones_when_all_lie_on_a_shelf(ground):
    asked = fake_routers.lora_router(ground, exact_cards=10)
    theirs = [fake_routers.card_about(f"theirs-{n}", SKARN) for n in range(60)]
    # Farther away than each of theirs, so that a short list has no place for it.
    roof = (f"Who mended the roof of the house beside {SKARN} in spring?",)
    ours = dataclasses.replace(fake_routers.card_about("ours", SKARN), examples=roof)
    others = [fake_routers.card_about(f"other-{n}", f"the Brun{n} museum") for n in range(20)]
    await asked.register_cards([*theirs, ours, *others])
    await asked.settled()
    hidden = {card.identity for card in theirs}
    found = await asked.select(QUESTION, hidden=lambda: hidden)
    assert [one.card for one in found.candidates] == [ours.identity]
    listed = asked.first_cards(5, hidden)
    assert len(listed) == 5
    assert hidden.isdisjoint(listed)
    await asked.close()
