"""The router above the number of cards that it compares with every question."""

from __future__ import annotations

import asyncio
import threading

import pytest

from services.router import practice, profile, router, shelf
from tests import fake_router_peers, fake_routers

THINGS = tuple(
    f"the {first}{last} {kind}"
    for first, kind in (("Skarn", "lighthouse"), ("Tarn", "viaduct"), ("Brun", "aqueduct"),
                        ("Alv", "museum"), ("Corv", "railway"), ("Delm", "harbour"))
    for last in ("holm", "vik", "wick", "mere", "stad", "ford", "by")
)  # fmt: skip
WORDINGS = ("Which height has {x}?", "Tell me who built {x}", "In what year did {x} open?",
            "Who built {x}?", "What colour has {x}?")  # fmt: skip
ELSEWHERE = ("How do I boil an egg?", "Who built the Ostervane citadel?", "hello", "?!")
LIMIT = 10


@pytest.fixture
def small(ground: practice.Practice) -> router.LoRARouter:
    return fake_routers.lora_router(ground, exact_cards=LIMIT)


def cards(count: int = len(THINGS), version: str = "1") -> list[profile.Card]:
    return [fake_routers.card_about(f"c{n:02}", THINGS[n], version) for n in range(count)]


async def test_decisions_are_those_of_exact_search_when_cards_are_on_the_shelf(small, lora_router):
    for one in (small, lora_router):
        await one.register_cards(cards())
        await one.settled()
    assert len(small) == len(lora_router) == len(THINGS) > LIMIT
    asked = [wording.format(x=thing) for thing in THINGS[::4] for wording in WORDINGS]
    for text in (*asked, *ELSEWHERE):
        by_shelf, exactly = await small.select(text), await lora_router.select(text)
        assert by_shelf.confidence == pytest.approx(exactly.confidence, abs=0.03), text
        if exactly.confidence > 0.1:
            first, other = by_shelf.candidates[0], exactly.candidates[0]
            assert (first.card, first.nearest_example) == (other.card, other.nearest_example), text
            assert first.probability == pytest.approx(other.probability, abs=0.05)
            assert first.similarity == pytest.approx(other.similarity, abs=1e-3)


async def test_all_asked_for_are_ranked_when_top_k_is_large(small):
    await small.register_cards(cards())
    decision = await small.select(f"Who built {THINGS[3]}?", top_k=1_000)
    assert len(decision.candidates) == len(THINGS)
    total = decision.none_probability + sum(c.probability for c in decision.candidates)
    assert total == pytest.approx(1.0)


async def test_card_is_gone_when_unregistered_from_the_shelf(small):
    await small.register_cards(cards())
    gone = cards()[5]
    await small.unregister_card(gone.name)
    await small.unregister_card("never there")
    decision = await small.select(f"Who built {THINGS[5]}?", top_k=50)
    assert gone.identity not in [c.card for c in decision.candidates]
    assert not small.is_active(gone.name, gone.digest)
    assert len(small) == len(THINGS) - 1


async def test_only_the_new_version_is_found_when_one_is_replaced_on_the_shelf(small):
    await small.register_cards(cards())
    old, new = cards()[4], cards(version="2")[4]
    await small.register_card(new)
    decision = await small.select(f"Who built {THINGS[4]}?", top_k=50)
    assert decision.candidates[0].card == new.identity
    assert old.identity not in [c.card for c in decision.candidates]
    await small.unregister_version(old.name, old.digest)
    assert small.is_active(new.name, new.digest)
    await small.unregister_version(new.name, new.digest)
    assert not small.is_active(new.name, new.digest)


async def test_real_card_takes_the_place_when_a_virtual_one_of_its_identity_is_on_the_shelf(small):
    await small.register_cards(cards())
    card = fake_routers.card_about("ost", "the Ostervane citadel")
    await small.register_virtual_candidate("ost", card.digest, "About the Ostervane citadel")
    assert fake_routers.names(small, virtual=True) == {"ost"}
    await small.register_card(card)
    await small.register_virtual_candidate("ost", card.digest, "About the Ostervane citadel")
    assert fake_routers.names(small, virtual=True) == set()
    decision = await small.select("Who built the Ostervane citadel?")
    assert decision.candidates[0].nearest_example == "Who built the Ostervane citadel?"


async def test_virtual_cards_stay_virtual_when_the_limit_is_crossed_both_ways(small):
    few, many = cards(LIMIT - 1), cards()
    await small.register_cards(few, virtual=True)
    await small.register_cards(many[LIMIT:])
    assert fake_routers.names(small, virtual=True) == {card.name for card in few}
    await small.retain({card.name for card in few[:2]})
    assert fake_routers.names(small, virtual=True) == {card.name for card in few[:2]}
    assert small.cards == tuple(sorted(card.identity for card in few[:2]))
    await small.settled()
    assert (await small.select(f"Who built {THINGS[0]}?")).candidates[0].card == few[0].identity


async def test_cards_stay_off_the_shelf_when_new_versions_replace_as_many(small):
    await small.register_cards(cards(LIMIT))
    await small.register_cards(cards(LIMIT, version="2"))
    assert small.stock.shortlist is None
    await small.register_card(cards()[LIMIT])
    assert small.stock.shortlist is not None


async def test_every_question_finds_its_card_when_cards_come_and_go_meanwhile(small):
    lasting = cards()[:3]
    await small.register_cards(lasting)

    async def change() -> None:
        for version in range(3):
            await small.register_cards(cards(version=str(version))[3:])
            await small.retain({card.name for card in lasting})

    changing = asyncio.create_task(change())
    while not changing.done():
        for card, thing in zip(lasting, THINGS, strict=False):
            decision = await small.select(f"Who built {thing}?")
            assert decision.candidates[0].card == card.identity
            await asyncio.sleep(0)
    await changing
    assert small.cards == tuple(sorted(card.identity for card in lasting))


async def test_questions_are_answered_when_many_cards_are_registered_at_once(small, monkeypatch):
    monkeypatch.setattr(router, "_CARDS_IN_ONE_STEP", 5)
    seen = set()
    registering = asyncio.create_task(small.register_cards(cards()))
    while not registering.done():
        await small.select(f"Who built {THINGS[0]}?")
        seen.add(len(small))
        await asyncio.sleep(0)
    await registering
    assert len(small) == len(THINGS)
    assert len(seen) > 3


async def test_event_loop_reads_no_rows_when_known_cards_are_registered_again(small, monkeypatch):
    await small.register_cards(cards())
    readers, find = set(), shelf.Shelf.find

    def noted(store, name):
        readers.add(threading.get_ident())
        return find(store, name)

    monkeypatch.setattr(shelf.Shelf, "find", noted)
    await small.register_cards(cards())
    assert readers and threading.get_ident() not in readers


async def test_first_cards_are_told_when_there_are_many(small):
    await small.register_cards(cards())
    assert small.first_cards(4) == tuple(sorted(card.identity for card in cards(4)))
    assert len(small.first_cards(1_000)) == len(small.cards) == len(THINGS)


def test_every_name_is_about_something_of_its_own():
    assert len({fake_router_peers.about(thing) for thing in THINGS}) == len(THINGS)
