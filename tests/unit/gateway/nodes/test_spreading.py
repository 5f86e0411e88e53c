"""Load spreads over the nodes, whatever they are busy with and however chance falls."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import hypothesis
from hypothesis import strategies

from tests.unit.gateway.nodes import fakes

BUSY = strategies.lists(strategies.integers(0, 12), min_size=2, max_size=8)


async def _loads(busy: Sequence[int], requests: int, seed: int) -> tuple[list[float], list[bool]]:
    """The loads after so many requests that none has ended, and whether each went well.

    One went well that did not go to the busiest of all.
    """
    backends = [fakes.FakeBackend(f"n{place}:1") for place in range(len(busy))]
    for backend, running in zip(backends, busy, strict=True):
        backend.tells(running=running)
        backend.held = asyncio.Event()
    house = fakes.House(*backends, seed=seed)
    fleet = await house.begun()
    members = {member.address: member for member in fleet.known()}
    tasks, well = [], []
    for _ in range(requests):
        before = {address: member.load for address, member in members.items()}
        flying = {address: member.in_flight for address, member in members.items()}
        tasks.append(asyncio.create_task(fleet.answer(fakes.QUESTION)))
        while sum(backend.asked for backend in backends) < len(tasks):
            await asyncio.sleep(0)
        (chosen,) = [one for one, m in members.items() if m.in_flight > flying[one]]
        others = [load for address, load in before.items() if address != chosen]
        well.append(before[chosen] <= max(others))
    loads = [member.load for member in members.values()]
    for backend in backends:
        assert backend.held is not None
        backend.held.set()
    await asyncio.gather(*tasks)
    return loads, well


@hypothesis.given(BUSY, strategies.integers(1, 40), strategies.integers(0, 2**32))
@hypothesis.settings(max_examples=40, deadline=None)
def test_request_never_goes_to_the_busiest_of_all(
    busy: list[int], requests: int, seed: int
) -> None:
    _, well = asyncio.run(_loads(busy, requests, seed))
    assert all(well)


@hypothesis.given(strategies.integers(2, 8), strategies.integers(0, 2**32))
@hypothesis.settings(max_examples=40, deadline=None)
def test_load_is_nearly_even_when_all_nodes_began_idle(nodes: int, seed: int) -> None:
    each = 20
    loads, _ = asyncio.run(_loads([0] * nodes, each * nodes, seed))
    assert sum(loads) * fakes.ROWS == each * nodes
    # Drawn without looking, the fullest of eight would have some 31 of 160.
    assert max(loads) * fakes.ROWS <= each + 4
