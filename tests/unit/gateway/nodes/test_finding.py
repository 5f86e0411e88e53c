"""Which nodes there are."""

from __future__ import annotations

import asyncio

from shared import errors
from tests.unit.gateway.nodes.fakes import HOME, QUESTION, UNREACHED, FakeBackend, House


def _addresses(house: House) -> list[str]:
    return [state.address for state in house.fleet.nodes()]


async def test_inference_address_is_asked_when_no_other_node_is_known() -> None:
    house = House()
    await house.begun()
    assert _addresses(house) == [HOME]


async def test_configured_and_listed_nodes_are_asked_when_there_are_both() -> None:
    house = House(FakeBackend("a:1"))
    house.listed = ["b:1", "a:1", ""]
    await house.begun()
    assert _addresses(house) == ["a:1", "b:1"]


async def test_nodes_stay_when_the_store_is_away() -> None:
    house = House()
    house.listed = ["b:1"]
    await house.begun()
    house.listed = errors.UnavailableError("no store")
    for _ in range(3):
        house.now += 100
        await house.fleet.find()
    assert _addresses(house) == ["b:1"]


async def test_node_goes_at_once_when_it_is_neither_listed_nor_reached() -> None:
    house = House()
    house.listed = ["b:1", "c:1"]
    fleet = await house.begun()
    house.listed = ["c:1"]
    await fleet.find()
    assert _addresses(house) == ["b:1", "c:1"]
    house.backends["b:1"].unreached = UNREACHED
    await fleet.refresh()
    await fleet.find()
    assert _addresses(house) == ["c:1"]


async def test_node_goes_after_a_while_when_it_is_no_longer_listed() -> None:
    house = House()
    house.listed = ["b:1", "c:1"]
    fleet = await house.begun()
    # A store that has begun anew knows no nodes for some seconds.
    house.listed = []
    house.now = 14.0
    await fleet.find()
    assert _addresses(house) == ["b:1", "c:1"]
    house.listed = ["c:1"]
    house.now = 16.0
    await fleet.find()
    assert _addresses(house) == ["c:1"]


async def test_connection_is_closed_after_the_last_answer_when_a_node_has_gone() -> None:
    house = House()
    house.listed = ["b:1"]
    fleet = await house.begun()
    gone = house.backends["b:1"]
    gone.held = asyncio.Event()
    asked = asyncio.create_task(fleet.answer(QUESTION))
    while not gone.asked:
        await asyncio.sleep(0)
    house.listed = []
    house.now = 99.0
    await fleet.find()
    assert _addresses(house) == [HOME]
    await asyncio.sleep(0)
    assert not gone.is_closed
    gone.held.set()
    assert (await asked).answer.node == "b:1"
    while not gone.is_closed:
        await asyncio.sleep(0)


async def test_node_counts_once_when_it_is_known_by_two_addresses() -> None:
    house = House(FakeBackend("a:1"), FakeBackend("localhost:1"))
    for backend in house.backends.values():
        backend.tells(id="one process")
    fleet = await house.begun()
    assert len(fleet.known()) == 1
    assert _addresses(house) == ["a:1", "localhost:1"]


async def test_node_is_asked_where_it_is_reached_when_it_is_known_by_two_addresses() -> None:
    gone, here = FakeBackend("a:1"), FakeBackend("localhost:1")
    house = House(gone, here)
    for backend in house.backends.values():
        backend.tells(id="one process")
    fleet = await house.begun()
    gone.unreached = UNREACHED
    await fleet.refresh()
    assert [member.address for member in fleet.known()] == ["localhost:1"]
    assert (await fleet.answer(QUESTION)).answer.node == "localhost:1"


async def test_connections_are_closed_when_the_fleet_stops() -> None:
    house = House(FakeBackend("a:1"), FakeBackend("b:1"))
    await house.fleet.start()
    assert [state.status for state in house.fleet.nodes()] == ["ready", "ready"]
    await house.fleet.stop()
    assert all(backend.is_closed for backend in house.backends.values())
