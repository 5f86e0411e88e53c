from __future__ import annotations

import dataclasses
import random

import pytest
import torch

from services.hierarchy import migration
from shared import errors
from shared.hierarchy import levels, migration_queue
from tests.unit.hierarchy.made_circuits import circuit

PARAMETERS = {
    levels.Level.AGENT: 60_000,
    levels.Level.SWARM: 120_000,
    levels.Level.DOMAIN: 240_000,
}
Offer = migration_queue.Offer


def arrived(move: migration.Move, name: str = "") -> migration.messages.Circuit:
    """The circuit as the hierarchy offers it again, from its new layer."""
    return dataclasses.replace(move.circuit, level=move.target, id=name or move.circuit.id)


def climb(coordinator: migration.MigrationCoordinator, ticks: int) -> list[tuple[str, str]]:
    """Ticks, each time offering what moved again at once; gives what moved where."""
    seen = []
    for _ in range(ticks):
        for move in coordinator.tick():
            seen.append((move.circuit.id, move.target.value))
            coordinator.offer(arrived(move))
    return seen


@pytest.mark.parametrize(
    ("top", "path"),
    [
        (levels.Level.AGENT, []),
        (levels.Level.SWARM, ["swarm"]),
        (levels.Level.DOMAIN, ["swarm", "domain"]),
        (levels.Level.FOUNDATION, ["swarm", "domain", "foundation"]),
    ],
)
def test_a_circuit_travels_as_far_as_its_top_one_channel_a_tick(
    top: levels.Level, path: list[str]
) -> None:
    coordinator = migration.MigrationCoordinator(PARAMETERS)
    coordinator.offer(circuit("a:1", size=2000, top=top))
    for tick in range(6):
        moves = coordinator.tick()
        assert [move.target.value for move in moves] == path[tick : tick + 1]
        for move in moves:
            assert move.circuit.level.above is move.target
            coordinator.offer(arrived(move))
    assert coordinator.waiting == ()


def test_fast_track_goes_first_in_each_channel_when_others_wait() -> None:
    coordinator = migration.MigrationCoordinator(PARAMETERS)
    for number in range(6):
        coordinator.offer(circuit(f"a:{number}", size=4000, strength=0.9))
    coordinator.offer(circuit("b:9", size=4000, strength=0.1, fast_track=True))
    moves = climb(coordinator, 1000)
    for target in ("swarm", "domain"):
        assert next(name for name, where in moves if where == target) == "b:9"
    assert len(moves) == 14


def test_the_slower_channel_goes_first_when_both_have_something_to_move() -> None:
    coordinator = migration.MigrationCoordinator(PARAMETERS)
    coordinator.offer(circuit("a:1"))
    coordinator.offer(circuit("a:2", level=levels.Level.SWARM))
    assert [move.circuit.id for move in coordinator.tick()] == ["a:2", "a:1"]


def test_a_circuit_waits_in_one_queue_only() -> None:
    coordinator = migration.MigrationCoordinator(PARAMETERS)
    assert coordinator.offer(circuit("a:1")) is Offer.TAKEN
    assert coordinator.offer(circuit("a:1")) is Offer.DUPLICATE
    assert coordinator.offer(circuit("a:1", level=levels.Level.SWARM)) is Offer.DUPLICATE
    assert "a:1" in coordinator and len(coordinator.waiting) == 1


def test_a_circuit_is_refused_when_no_shared_channel_leads_out_of_its_layer() -> None:
    coordinator = migration.MigrationCoordinator(PARAMETERS)
    private = circuit("a:1", level=levels.Level.CONTEXT)
    with pytest.raises(errors.InvalidInputError, match="circuits come from"):
        coordinator.offer(private)
    assert not coordinator.replace(private)
    slowest = circuit("a:2", level=levels.Level.FOUNDATION, top=levels.Level.FOUNDATION)
    assert coordinator.offer(slowest) is Offer.AT_TOP


def test_what_an_agent_has_in_its_own_layer_is_withdrawn_and_what_the_swarm_has_stays() -> None:
    coordinator = migration.MigrationCoordinator(PARAMETERS)
    for name, level in (("a:1", "agent"), ("a:2", "swarm"), ("b:1", "agent"), ("b:2", "agent")):
        coordinator.offer(circuit(name, level=levels.Level(level)))
    assert coordinator.withdraw_agent("a") == ("a:1",)
    assert coordinator.withdraw("b:2") and not coordinator.withdraw("b:2")
    assert {one.id for one in coordinator.waiting} == {"a:2", "b:1"}


def test_the_state_of_all_channels_is_restored_exactly() -> None:
    def loaded() -> migration.MigrationCoordinator:
        return migration.MigrationCoordinator(PARAMETERS)

    coordinator = loaded()
    for number in range(30):
        coordinator.offer(circuit(f"{number % 4}:{number}", 500 + 37 * number, number / 30))
    climb(coordinator, 10)
    again = loaded()
    again.restore(coordinator.state())
    assert again.stats == coordinator.stats
    assert climb(again, 500) == climb(coordinator, 500)
    states = [one.state() for one in (coordinator, again)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_everything_stays_bounded_and_runs_empty_when_ten_thousand_ticks_have_random_load() -> None:
    settings = migration_queue.QueueSettings(length=12, most_per_agent=6, reserve=2)
    coordinator = migration.MigrationCoordinator(PARAMETERS, settings=settings)
    chance = random.Random(0)
    taken = moved = largest = 0
    within = dict.fromkeys(migration.SOURCES, 0)
    tops = [levels.Level.SWARM, levels.Level.DOMAIN, levels.Level.FOUNDATION]
    for tick in range(10_000):
        for number in range(chance.choice((0, 0, 0, 1, 5))):
            one = circuit(
                f"{chance.randrange(8)}:{tick}.{number}",
                size=chance.randrange(400, 8000),
                strength=chance.random(),
                top=chance.choice(tops),
                fast_track=chance.random() < 0.1,
                critical=chance.random() < 0.001,
            )
            taken += coordinator.offer(one) is Offer.TAKEN
            largest = max(largest, one.size)
        for move in coordinator.tick():
            moved += move.circuit.level is levels.Level.AGENT
            within[move.circuit.level] += 0 if move.circuit.critical else move.circuit.size
            coordinator.offer(arrived(move))
        for source, stats in coordinator.stats.items():
            allowance = PARAMETERS[source] * migration_queue.SHARES[source]
            assert stats.depth <= 14 and stats.tokens >= 0
            assert within[source] <= (tick + 11) * allowance + largest
        if tick % 500 == 0:
            assert (
                sum(value.nbytes for value in coordinator.state().values())
                < 3 * 14 * 8000 * 4 + 200_000
            )
    depth = sum(one.level is levels.Level.AGENT for one in coordinator.waiting)
    assert taken == moved + depth and moved > 100
    for source, stats in coordinator.stats.items():
        # Each channel was busy throughout, and gave what it had.
        assert stats.rejected > 0
        assert within[source] > 9_000 * PARAMETERS[source] * migration_queue.SHARES[source]
    bound = 200 + 12 * (1 + largest / (PARAMETERS[levels.Level.DOMAIN] * 0.0001))
    climb(coordinator, 3 * int(bound))
    assert coordinator.waiting == ()
