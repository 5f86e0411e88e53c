"""Which node is asked, who is asked next, and what the caller sees of it."""

from __future__ import annotations

import asyncio

import pytest

from services.gateway import domain
from shared import errors
from tests.unit.gateway.nodes import fakes
from tests.unit.gateway.nodes.fakes import (
    HOME,
    OTHER,
    QUESTION,
    SKILL,
    UNREACHED,
    FakeBackend,
    House,
)

FULL = errors.OverloadedError("queue is full")


async def test_card_is_asked_where_it_is_in_memory_when_others_only_serve_it() -> None:
    near = FakeBackend("b:1", [SKILL], [SKILL])
    near.tells(running=fakes.ROWS)
    house = House(FakeBackend("a:1", [SKILL]), near, FakeBackend("c:1", [OTHER], [OTHER]))
    fleet = await house.begun()
    for model in ("skill", SKILL):
        assert (await fleet.answer(fakes.asking(model))).answer.node == "b:1"
    near.unreached = UNREACHED
    await fleet.refresh()
    assert (await fleet.answer(fakes.asking("skill"))).answer.node == "a:1"


async def test_latest_version_is_meant_when_a_card_is_asked_by_its_name_alone() -> None:
    old, new = SKILL, "skill@" + "c" * 64
    house = House(FakeBackend("a:1", [old, new], [old]), FakeBackend("b:1", [old, new], [new]))
    fleet = await house.begun()
    assert (await fleet.answer(fakes.asking("skill"))).answer.node == "b:1"
    assert (await fleet.answer(fakes.asking(old))).answer.node == "a:1"


async def test_not_found_is_raised_when_no_node_serves_the_card() -> None:
    house = House(FakeBackend("a:1", [OTHER]))
    fleet = await house.begun()
    with pytest.raises(errors.NotFoundError, match="skill is served by no node"):
        await fleet.answer(fakes.asking("skill"))
    with pytest.raises(errors.InvalidInputError, match="No Card"):
        await fleet.answer(fakes.asking("No Card"))
    assert house.backends["a:1"].asked == 0


async def test_card_is_found_when_it_came_after_the_last_look() -> None:
    house = House(FakeBackend("a:1"), FakeBackend("b:1"))
    fleet = await house.begun()
    house.backends["b:1"].tells(served=(SKILL,))
    assert (await fleet.answer(fakes.asking(SKILL))).answer.node == "b:1"


async def test_next_node_is_asked_when_a_card_is_not_there_after_all() -> None:
    first, second = FakeBackend("a:1", [SKILL], [SKILL]), FakeBackend("b:1", [SKILL])
    first.failures = [errors.NotFoundError("still on its way")]
    house = House(first, second, retries=0)
    fleet = await house.begun()
    assert (await fleet.answer(fakes.asking(SKILL))).answer.node == "b:1"
    assert (first.asked, house.state("a:1").retries, house.state("a:1").status) == (1, 1, "ready")


async def test_card_may_be_asked_for_again_when_its_node_has_begun_anew() -> None:
    house = House(FakeBackend("a:1", [SKILL]))
    fleet = await house.begun()
    house.backends["a:1"].tells(id="another process", served=())
    await fleet.refresh()
    with pytest.raises(errors.UnavailableError, match="on its way"):
        await fleet.answer(fakes.asking("skill"))
    house.now = 31.0
    with pytest.raises(errors.NotFoundError):
        await fleet.answer(fakes.asking("skill"))


async def test_another_node_is_asked_when_one_fails_before_the_first_piece() -> None:
    for failure in (UNREACHED, FULL):
        house = House(FakeBackend("a:1"), FakeBackend("b:1"))
        fleet = await house.begun()
        house.backends["a:1"].tells(waiting=1)  # b is less busy
        await fleet.refresh()
        house.backends["b:1"].failures = [failure]
        pieces = await fakes.streamed(fleet)
        assert [piece.text for piece in pieces] == ["a:1", " and more", ""]
        assert pieces[-1].final is not None and pieces[-1].final.node == "a:1"
        assert house.state("b:1").requests == ((type(failure).__name__, 1),)
        assert house.state("b:1").retries == 1
        assert house.state("a:1").requests == (("ok", 1),)
        assert not house.pauses


async def test_same_node_is_asked_again_after_a_pause_when_there_is_no_other() -> None:
    only = FakeBackend("a:1")
    only.failures = [UNREACHED, UNREACHED]
    house = House(only, retries=2)
    fleet = await house.begun()
    assert (await fleet.answer(QUESTION)).answer.text == "a:1"
    assert only.asked == 3
    assert len(house.pauses) == 2 and house.pauses[1] > house.pauses[0] > 0


async def test_full_fleet_is_not_asked_again_when_every_node_was() -> None:
    house = House(FakeBackend("a:1"), FakeBackend("b:1"), retries=5)
    fleet = await house.begun()
    for backend in house.backends.values():
        backend.failures = [FULL] * 5
    with pytest.raises(errors.OverloadedError):
        await fleet.answer(QUESTION)
    assert [one.asked for one in house.backends.values()] == [1, 1]
    assert not house.pauses


async def test_last_error_is_raised_when_all_retries_are_used_up() -> None:
    house = House(*[FakeBackend(f"{one}:1") for one in "abcd"], retries=2)
    fleet = await house.begun()
    for backend in house.backends.values():
        backend.failures = [UNREACHED] * 5
    with pytest.raises(errors.UnavailableError, match="refused"):
        await fleet.answer(QUESTION)
    assert sorted(one.asked for one in house.backends.values()) == [0, 1, 1, 1]


@pytest.mark.parametrize(
    "failure",
    [
        errors.DeadlineError("took too long"),
        errors.InvalidInputError("query is empty"),
        errors.ForbiddenError("not with this token"),
        errors.InternalError("a defect"),
    ],
)
async def test_nobody_else_is_asked_when_that_would_not_help(
    failure: errors.SkillmeshError,
) -> None:
    house = House(FakeBackend("a:1"), FakeBackend("b:1"))
    fleet = await house.begun()
    for backend in house.backends.values():
        backend.failures = [failure]
    with pytest.raises(type(failure)):
        await fleet.answer(QUESTION)
    assert sum(one.asked for one in house.backends.values()) == 1


async def test_error_goes_to_the_caller_when_a_piece_was_already_there() -> None:
    house = House(FakeBackend("a:1"), FakeBackend("b:1"))
    fleet = await house.begun()
    for backend in house.backends.values():
        backend.breaks = UNREACHED
    come = []
    with pytest.raises(errors.UnavailableError):
        async for piece in fleet.stream(QUESTION):
            come.append(piece.text)
    assert len(come) == 1
    assert sum(one.asked for one in house.backends.values()) == 1


async def test_retryable_error_is_kept_when_another_node_lacks_the_card() -> None:
    first, second = FakeBackend("a:1", [SKILL], [SKILL]), FakeBackend("b:1", [SKILL])
    first.failures, second.failures = [UNREACHED], [errors.NotFoundError("not here")]
    fleet = await House(first, second).begun()
    with pytest.raises(errors.UnavailableError):
        await fleet.answer(fakes.asking(SKILL))


async def test_deadline_counts_for_all_tries_together_when_a_first_one_fails() -> None:
    only = FakeBackend("a:1")
    only.failures = [UNREACHED]
    house = House(only, deadline_s=7.0)
    fleet = await house.begun()
    await fleet.answer(QUESTION)
    assert only.deadlines == [7.0, 7.0 - house.pauses[0]]
    await fleet.answer(QUESTION, 3.0)
    assert only.deadlines[-1] == 3.0
    only.failures = [UNREACHED]
    with pytest.raises(errors.UnavailableError):
        await fleet.answer(QUESTION, 0.001)  # No time for the pause.
    with pytest.raises(errors.DeadlineError, match="no node answered within 0 s"):
        await fleet.answer(QUESTION, 0.0)


async def test_node_is_told_and_not_blamed_when_the_caller_goes_away() -> None:
    house = House(FakeBackend("a:1"))
    fleet = await house.begun()
    pieces = fleet.stream(QUESTION)
    assert (await anext(pieces)).text == "a:1"
    assert house.state("a:1").in_flight == 1
    await pieces.aclose()
    assert house.backends["a:1"].cancelled == 1
    house.backends["a:1"].held = asyncio.Event()
    waiting = asyncio.create_task(fleet.answer(QUESTION))
    while house.backends["a:1"].asked < 2:
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    state = house.state("a:1")
    assert (state.in_flight, state.requests, state.status) == (0, (("cancelled", 2),), "ready")


async def test_agents_are_asked_where_they_learn_when_that_node_is_there() -> None:
    home = FakeBackend(HOME)
    home.tells(running=fakes.ROWS, waiting=10)
    house = House(FakeBackend("a:1"), home)
    fleet = await house.begun()
    assert (await fleet.answer(fakes.asking(agent="ann"))).answer.node == HOME
    assert (await fleet.answer(fakes.asking())).answer.node == "a:1"
    home.failures = [UNREACHED]
    assert (await fleet.answer(fakes.asking(agent="ann"))).answer.node == "a:1"


async def test_card_is_pinned_on_every_node_that_serves_it_when_it_is_asked_for() -> None:
    gone = FakeBackend("c:1", [SKILL])
    gone.unreached = UNREACHED
    house = House(FakeBackend("a:1", [SKILL]), FakeBackend("b:1", [OTHER]), gone)
    fleet = await house.begun()
    assert await fleet.pin(SKILL) == ("a:1",)
    assert house.backends["a:1"].pinned == [SKILL]
    with pytest.raises(errors.NotFoundError):
        await fleet.pin("skill@" + "d" * 64)
    house.backends["b:1"].pinned = [SKILL]
    assert await fleet.unpin(SKILL) == ("a:1", "b:1")


async def test_unavailable_is_raised_when_no_node_was_ever_reached() -> None:
    house = House(FakeBackend("a:1"))
    house.backends["a:1"].unreached = UNREACHED
    fleet = await house.begun()
    with pytest.raises(errors.UnavailableError, match="no inference node is reached"):
        await fleet.answer(fakes.asking(SKILL))
    # But the node itself may be back before the next look.
    assert (await fleet.answer(QUESTION)).answer == domain.Answer(
        "a:1", "", 1.0, False, "", node="a:1"
    )
