from __future__ import annotations

import collections
import dataclasses

import numpy as np
import pytest

from services.router import admission, fitting, practice, router
from shared import errors
from tests import fake_router_peers, fake_routers

SKARN, TARN, ORUN = "the Skarnholm lighthouse", "the Tarnvik viaduct", "the Orun ferry"
OTHER = "What is the price of bread in Vessel Street?"


@pytest.fixture(params=["compared with all", "on a shelf"])
async def with_two_cards(request, ground):
    exact = 1 if request.param == "on a shelf" else 2_000
    made = fake_routers.lora_router(ground, exact_cards=exact)
    await made.register_cards(
        [fake_routers.card_about("skarn", SKARN), fake_routers.card_about("tarn", TARN)]
    )
    await made.settled()
    yield made
    await made.close()


async def test_own_questions_find_the_new_card_and_others_stay_when_it_keeps_to_its_own(
    with_two_cards: router.LoRARouter,
) -> None:
    card = fake_routers.card_about("orun", ORUN)
    found = await with_two_cards.rehearse(card, [f"Which height has {ORUN}?", OTHER])
    assert [tried.card for tried in found.questions] == [card.identity, ""]
    assert [tried.card_without for tried in found.questions] == ["", ""]
    assert len(found.others) >= 4
    assert all(tried.card == tried.card_without for tried in found.others)


async def test_questions_are_read_as_once_the_card_is_there_when_it_is_tried(
    with_two_cards: router.LoRARouter,
) -> None:
    about = fake_routers.card_about("orun", ORUN)
    tells = dataclasses.replace(about, answered_by=(0, 0, 0, 1, 1, 1, 2, 2))
    asked = [
        f"Which height has {ORUN}?",
        f"Tell me the builder of {ORUN}!",
        f"Who built {ORUN}?",
        f"Which height has {TARN}?",
        OTHER,
    ]
    for card in (tells, about):
        found = (await with_two_cards.rehearse(card, asked)).questions
        await with_two_cards.register_card(card)
        await with_two_cards.settled()
        for tried in found[:3]:
            (candidate,) = (await with_two_cards.select(tried.question)).candidates
            assert candidate.card == card.identity
            assert tried.similarity == pytest.approx(candidate.similarity)
            assert tried.reading == (candidate.reading or candidate.nearest_example)
        # How the new card reads it, though another one answers, or none.
        assert all(tried.reading in card.examples for tried in found)
        assert [tried.card == card.identity for tried in found] == [True, True, True, False, False]
        assert found[2].reading == found[2].question
        assert found[4].similarity < found[0].similarity
        await with_two_cards.unregister_card(card.name)


async def test_nothing_is_changed_when_a_card_is_tried(with_two_cards: router.LoRARouter) -> None:
    before = await with_two_cards.select(f"Who built {TARN}?", top_k=2)
    await with_two_cards.rehearse(fake_routers.card_about("orun", TARN), [])
    await with_two_cards.settled()
    assert await with_two_cards.select(f"Who built {TARN}?", top_k=2) == before
    assert len(with_two_cards.cards) == 2


async def test_thief_is_seen_when_a_card_has_the_questions_of_another(
    with_two_cards: router.LoRARouter,
) -> None:
    thief = dataclasses.replace(
        fake_routers.card_about("orun", ORUN), examples=fake_router_peers.about(TARN)
    )
    found = await with_two_cards.rehearse(thief, [])
    tarn = fake_routers.card_about("tarn", TARN).identity
    taken = {tried.card_without for tried in found.others if tried.card == thief.identity}
    assert taken == {tarn}


async def test_rehearsal_waits_when_cards_are_still_being_calibrated(
    ground: practice.Practice,
) -> None:
    made = fake_routers.lora_router(ground)
    await made.register_cards(
        [fake_routers.card_about(f"c{n}", f"the Mill{n} viaduct") for n in range(4)]
    )
    card, asked = fake_routers.card_about("orun", ORUN), [f"Which height has {ORUN}?", OTHER]
    at_once = await made.rehearse(card, asked)
    await made.settled()
    later = await made.rehearse(card, asked)
    await made.close()
    assert at_once == later


async def test_nearest_card_is_asked_enough_when_there_are_many(
    ground: practice.Practice,
) -> None:
    parts = ("roof", "door", "floor", "wall", "lamp", "gate", "stair", "room", "bell", "tower")
    asked = ("How old is", "What colour has", "Who made", "Where is", "How large is", "What is")
    rich = dataclasses.replace(
        fake_routers.card_about("tarn", TARN),
        examples=tuple(f"{how} the {part} of {TARN}?" for how in asked for part in parts),
    )
    made = fake_routers.lora_router(ground)
    await made.register_cards(
        [rich, *(fake_routers.card_about(f"c{n}", f"the Mill{n} viaduct") for n in range(19))]
    )
    thief = dataclasses.replace(fake_routers.card_about("orun", ORUN), examples=rich.examples)
    found = await made.rehearse(thief, [], threshold=0.0)
    await made.close()
    of = collections.Counter(tried.card_without for tried in found.others)
    # A twentieth of all questions would be eight.
    assert of[rich.identity] == 12


async def test_card_is_rehearsed_when_a_rival_has_the_same_example_twice(
    with_two_cards: router.LoRARouter,
) -> None:
    thing = "the Alvmere museum"
    far = "x " * admission.LONGEST_QUERY_CHARACTERS
    twice = dataclasses.replace(
        fake_routers.card_about("alv", thing),
        # Alike once they are cut.
        examples=(far + "a", far + "b", *fake_router_peers.about(thing)),
    )
    await with_two_cards.register_card(twice)
    found = await with_two_cards.rehearse(fake_routers.card_about("orun", ORUN), [])
    assert {tried.card for tried in found.others} >= {twice.identity}


async def test_card_is_rehearsed_as_calibrated_before_when_no_calibration_can_be_found(
    ground: practice.Practice, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = fake_routers.lora_router(ground)
    card = fake_routers.card_about("orun", ORUN)

    def fails(*_: object) -> None:
        raise np.linalg.LinAlgError("singular")

    monkeypatch.setattr(fitting, "among", fails)
    found = await made.rehearse(card, [f"Which height has {ORUN}?"])
    assert [tried.card for tried in found.questions] == [card.identity]


async def test_version_before_is_no_rival_when_a_card_is_trained_anew(
    with_two_cards: router.LoRARouter,
) -> None:
    newer = fake_routers.card_about("tarn", TARN, version="2")
    found = await with_two_cards.rehearse(newer, [f"Which height has {TARN}?"])
    skarn = fake_routers.card_about("skarn", SKARN).identity
    assert {tried.card_without for tried in found.others} == {skarn}
    assert (found.questions[0].card, found.questions[0].card_without) == (newer.identity, "")


async def test_card_is_refused_when_it_has_nothing_to_compare_with(
    with_two_cards: router.LoRARouter,
) -> None:
    blank = dataclasses.replace(fake_routers.card_about("orun", ORUN), examples=(" ",))
    with pytest.raises(errors.InvalidInputError, match="no example"):
        await with_two_cards.rehearse(blank, [])
