"""When a node is left alone or gone, and how it comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from services.gateway import domain
from shared import errors
from tests.unit.gateway.nodes import fakes
from tests.unit.gateway.nodes.fakes import QUESTION, SKILL, UNREACHED, FakeBackend, House

BREAKER = {"failures": 2, "pause_s": 10.0, "longest_pause_s": 60.0}
DEFECT = errors.InternalError("out of memory")


def _house(*addresses: str) -> House:
    return House(*[FakeBackend(one) for one in addresses], retries=0, breaker=BREAKER)


async def _fail(house: House, address: str, failure: errors.SkillmeshError, times: int) -> None:
    """Requests that all go to one node, because the others are busier."""
    for other in house.backends.values():
        other.tells(waiting=0 if other.address == address else 99)
    await house.fleet.refresh()
    house.backends[address].failures = [failure] * times
    for _ in range(times):
        with pytest.raises(type(failure)):
            await house.fleet.answer(QUESTION)
    assert house.backends[address].failures == []


async def test_node_is_left_alone_when_it_failed_in_a_row_and_another_is_there() -> None:
    house = _house("a:1", "b:1")
    fleet = await house.begun()
    await _fail(house, "a:1", UNREACHED, 2)
    assert house.state("a:1").status == "open"
    assert house.state("a:1").reason == "connection refused"
    for _ in range(5):
        assert (await fleet.answer(QUESTION)).answer.node == "b:1"


async def test_only_node_is_asked_when_it_is_left_alone() -> None:
    house = _house("a:1")
    fleet = await house.begun()
    await _fail(house, "a:1", UNREACHED, 2)
    assert (await fleet.answer(QUESTION)).answer.node == "a:1"
    assert house.state("a:1").status == "ready"


async def test_one_request_goes_through_when_the_pause_is_over() -> None:
    house = _house("a:1", "b:1")
    fleet = await house.begun()
    await _fail(house, "a:1", DEFECT, 2)
    house.now = 10.0
    assert house.state("a:1").status == "half-open"
    held = house.backends["a:1"].held = asyncio.Event()
    first = asyncio.create_task(fleet.answer(QUESTION))
    while not house.state("a:1").in_flight:
        await asyncio.sleep(0)
    for _ in range(5):
        assert (await fleet.answer(QUESTION)).answer.node == "b:1"
    held.set()
    assert (await first).answer.node == "a:1"
    assert house.state("a:1").status == "ready"


async def test_next_request_goes_through_when_the_first_one_was_given_up() -> None:
    house = _house("a:1", "b:1")
    fleet = await house.begun()
    await _fail(house, "a:1", DEFECT, 2)
    house.now = 10.0
    house.backends["a:1"].held = asyncio.Event()
    first = asyncio.create_task(fleet.answer(QUESTION))
    while not house.state("a:1").in_flight:
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert house.state("a:1").status == "half-open"
    house.backends["a:1"].held = None
    assert (await fleet.answer(QUESTION)).answer.node == "a:1"


async def test_first_piece_closes_the_circuit_when_the_answer_is_long() -> None:
    house = _house("a:1")
    fleet = await house.begun()
    await _fail(house, "a:1", DEFECT, 2)
    house.now = 10.0
    pieces = fleet.stream(QUESTION)
    await anext(pieces)
    assert house.state("a:1").status == "ready"
    await pieces.aclose()


async def test_look_closes_the_circuit_when_the_node_could_not_be_reached() -> None:
    house = _house("a:1", "b:1")
    fleet = await house.begun()
    await _fail(house, "a:1", UNREACHED, 2)
    await fleet.refresh()
    assert house.state("a:1").status == "ready"


async def test_look_does_not_close_the_circuit_when_requests_find_a_defect() -> None:
    house = _house("a:1", "b:1")
    fleet = await house.begun()
    await _fail(house, "a:1", DEFECT, 2)
    await fleet.refresh()
    assert house.state("a:1").status == "open"
    house.backends["a:1"].tells(id="another process")
    await fleet.refresh()
    assert house.state("a:1").status == "ready"


@pytest.mark.parametrize(
    "failure",
    [
        errors.OverloadedError("full"),
        errors.DeadlineError("too slow for this caller"),
        errors.InvalidInputError("empty"),
    ],
)
async def test_node_is_not_left_alone_when_it_only_refuses(failure: errors.SkillmeshError) -> None:
    house = _house("a:1")
    await house.begun()
    await _fail(house, "a:1", failure, 5)
    assert house.state("a:1").status == "ready"


async def _heard(house: House) -> list[domain.Piece]:
    return [piece async for piece in house.fleet.stream(QUESTION)]


async def _wait_in_vain(
    house: House, address: str, seconds: float, ask: Callable[[House], Awaitable[object]] = _heard
) -> asyncio.Future[object]:
    """A request that a node keeps waiting until its time is up."""
    backend = house.backends[address]
    before = house.state(address).in_flight
    backend.held, backend.failures = asyncio.Event(), [errors.DeadlineError("time is up")]
    waits = asyncio.ensure_future(ask(house))
    while house.state(address).in_flight == before:
        await asyncio.sleep(0)
    house.now += seconds
    return waits


@pytest.mark.parametrize("leaves", [False, True])
async def test_node_is_left_alone_when_it_hangs_though_it_answers_looks(leaves: bool) -> None:
    house = _house("a:1", "b:1")
    fleet = await house.begun()
    house.backends["b:1"].tells(waiting=99)
    await fleet.refresh()
    for _ in range(2):
        waits = await _wait_in_vain(house, "a:1", 20.0)
        if leaves:
            waits.cancel()
        else:
            house.backends["a:1"].held.set()
        with pytest.raises((errors.DeadlineError, asyncio.CancelledError)):
            await waits
    await fleet.refresh()
    assert house.state("a:1").status == "open"
    assert "no word for 10 s" in house.state("a:1").reason
    assert (await fleet.answer(QUESTION)).answer.node == "b:1"


async def _whole(house: House) -> object:
    return await house.fleet.answer(QUESTION)


@pytest.mark.parametrize(
    ("seconds", "others_hear", "ask"),
    [(9.0, False, _heard), (20.0, True, _heard), (20.0, False, _whole)],
)
async def test_node_is_not_left_alone_when_others_hear_of_it_or_nothing_could_be_heard_yet(
    seconds: float, others_hear: bool, ask: Callable[[House], Awaitable[object]]
) -> None:
    house = _house("a:1")
    fleet = await house.begun()
    for _ in range(3):
        pieces = fleet.stream(QUESTION)
        if others_hear:
            await anext(pieces)
            house.now += 1.0
        waits = await _wait_in_vain(house, "a:1", seconds, ask)
        if others_hear:
            # One in the midst of its answer: the node is at work on others.
            assert (await anext(pieces)).final is None
        house.backends["a:1"].held.set()
        with pytest.raises(errors.DeadlineError):
            await waits
        await pieces.aclose()
        house.backends["a:1"].held = None
    assert house.state("a:1").status == "ready"


async def test_node_is_left_alone_when_new_requests_fail_though_a_stream_goes_on() -> None:
    house = _house("a:1", "b:1")
    fleet = await house.begun()
    house.backends["b:1"].tells(waiting=99)
    await fleet.refresh()
    pieces = fleet.stream(QUESTION)
    await anext(pieces)
    await _fail(house, "a:1", DEFECT, 2)
    assert (await anext(pieces)).final is None
    assert house.state("a:1").status == "open"
    await pieces.aclose()


async def test_node_gets_no_requests_when_it_no_longer_serves() -> None:
    house = _house("a:1", "b:1")
    fleet = await house.begun()
    house.backends["b:1"].tells(waiting=99)
    house.backends["a:1"].unreached = errors.UnavailableError("says that it does not serve")
    await fleet.refresh()
    assert house.state("a:1").status == "gone"
    assert "does not serve" in house.state("a:1").reason
    for _ in range(5):
        assert (await fleet.answer(QUESTION)).answer.node == "b:1"
    house.backends["a:1"].unreached = None
    await fleet.refresh()
    assert house.state("a:1").status == "ready"
    assert (await fleet.answer(QUESTION)).answer.node == "a:1"


async def test_node_is_gone_only_after_three_looks_when_it_is_slow() -> None:
    house = _house("a:1")
    fleet = await house.begun()
    house.backends["a:1"].unreached = errors.DeadlineError("2 s")
    for status in ("ready", "ready", "gone"):
        await fleet.refresh()
        assert house.state("a:1").status == status


async def test_load_is_what_the_node_told_and_what_went_there_since() -> None:
    house = _house("a:1")
    fleet = await house.begun()
    (member,) = fleet.known()
    backend = house.backends["a:1"]
    backend.held = asyncio.Event()
    requests = [asyncio.create_task(fleet.answer(QUESTION)) for _ in range(3)]
    while member.in_flight < 3:
        await asyncio.sleep(0)
    assert member.load == 3 / fakes.ROWS
    # What the node tells has those three in it.
    backend.tells(running=2, waiting=1)
    await fleet.refresh()
    assert member.load == 3 / fakes.ROWS
    requests.append(asyncio.create_task(fleet.answer(QUESTION)))
    while member.in_flight < 4:
        await asyncio.sleep(0)
    assert member.load == 4 / fakes.ROWS
    backend.unreached = errors.DeadlineError("2 s")
    await fleet.refresh()
    assert member.load == 4 / fakes.ROWS
    backend.held.set()
    await asyncio.gather(*requests)
    assert member.load == 3 / fakes.ROWS
    backend.unreached = None
    backend.tells(running=0, waiting=0)
    await fleet.refresh()
    assert member.load == 0


async def test_one_look_is_under_way_when_many_ask_for_it() -> None:
    house = _house("a:1")
    fleet = await house.begun()
    before = house.backends["a:1"].looks
    await asyncio.gather(*[fleet.refresh() for _ in range(10)])
    assert house.backends["a:1"].looks == before + 1


async def test_state_tells_all_that_the_node_told() -> None:
    house = House(FakeBackend("a:1", [SKILL], [SKILL]))
    await house.begun()
    house.backends["a:1"].tells(pinned=(SKILL,), running=2, waiting=3, queue=7, revision=9)
    await house.fleet.refresh()
    state = house.state("a:1")
    assert (state.served, state.resident, state.pinned) == ((SKILL,), (SKILL,), (SKILL,))
    assert (state.running, state.waiting, state.most_rows, state.queue) == (2, 3, fakes.ROWS, 7)
    assert (state.id, state.base_model, state.revision, state.status) == (
        ("a:1", "tiny", 9, "ready")
    )
