from __future__ import annotations

import math
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from shared import errors
from shared.hierarchy import levels, messages, migration_queue
from tests.unit.hierarchy.made_circuits import circuit

ALLOWANCE = 5.0
Offer = migration_queue.Offer


def queue(allowance: float = ALLOWANCE, **changed: Any) -> migration_queue.MigrationQueue:
    settings = migration_queue.QueueSettings(**changed)
    return migration_queue.MigrationQueue(levels.Level.AGENT, 1000, allowance / 1000, settings)


def ids(moved: list[messages.Circuit]) -> list[str]:
    return [one.id for one in moved]


def exhausted(**changed: Any) -> migration_queue.MigrationQueue:
    """One whose bandwidth is used up for nine ticks to come."""
    held = queue(**changed)
    held.offer(circuit("filler:0", size=95))
    assert ids(held.tick()) == ["filler:0"]
    return held


def ticks_until(held: migration_queue.MigrationQueue, name: str, most: int = 10_000) -> int:
    for tick in range(1, most):
        if name in ids(held.tick()):
            return tick
    raise AssertionError(f"{name} never moved")


@pytest.mark.parametrize(
    ("source", "allowance"),
    [("context", 100.0), ("agent", 50.0), ("swarm", 10.0), ("domain", 1.0)],
)
def test_the_bandwidth_is_a_share_of_the_layer_when_no_other_is_given(
    source: str, allowance: float
) -> None:
    held = migration_queue.MigrationQueue(levels.Level(source), 10_000)
    assert held.allowance == pytest.approx(allowance)
    assert held.stats.tokens == pytest.approx(10 * allowance)


def test_a_queue_is_refused_when_it_has_no_bandwidth_or_leads_nowhere() -> None:
    with pytest.raises(errors.ConfigError, match="no bandwidth"):
        queue(allowance=0)
    with pytest.raises(errors.ConfigError, match="no layer above"):
        migration_queue.MigrationQueue(levels.Level.FOUNDATION, 1000, 0.1)
    with pytest.raises(errors.ConfigError, match="never gives"):
        queue(recovery=0.01)


def test_a_circuit_far_larger_than_a_ticks_bandwidth_moves_and_is_paid_for_afterwards() -> None:
    held = queue()
    held.offer(circuit("a:1", size=1000))
    held.offer(circuit("a:2", size=1000))
    assert ids(held.tick()) == ["a:1"]
    assert ticks_until(held, "a:2") == (1000 - 50) / 5


def test_used_bandwidth_comes_back_by_a_tenth_when_little_was_used() -> None:
    held = queue()
    held.offer(circuit("a:1", size=20))
    held.tick()
    assert held.stats.tokens == pytest.approx(50 - 20)
    held.tick()
    assert held.stats.tokens == pytest.approx(50 - 18)
    held.tick()
    assert held.stats.tokens == pytest.approx(50 - 16.2)


def test_no_more_than_ten_ticks_of_bandwidth_accumulate_beside_the_largest_circuit() -> None:
    held = queue()
    for _ in range(500):
        held.tick()
    for number in range(20):
        held.offer(circuit(f"a{number}:1", size=10))
    # Room for 10 allowances of 5 and the largest circuit of 10.
    assert len(held.tick()) == 6


def test_the_strongest_move_first_and_fast_track_before_all_of_them() -> None:
    held = queue()
    for name, strength, fast in (("a", 0.7, False), ("b", 0.9, False), ("c", 0.1, True)):
        held.offer(circuit(name, strength=strength, fast_track=fast))
    held.offer(circuit("d", strength=math.nan))
    assert ids(held.tick()) == ["c", "b", "a", "d"]


def test_a_critical_circuit_moves_at_once_when_the_bandwidth_is_used_up() -> None:
    held = exhausted()
    held.offer(circuit("a:1", size=90, fast_track=True))
    held.offer(circuit("a:2", size=5000, critical=True))
    held.offer(circuit("a:3", size=5000, critical=True))
    before = held.stats
    assert ids(held.tick()) == ["a:2"]
    assert ids(held.tick()) == ["a:3"]
    after = held.stats
    assert after.emergency_parameters == 10_000
    assert after.moved_parameters == before.moved_parameters
    assert ticks_until(held, "a:1") <= 9 - 2 + 1, "emergencies cost the others no bandwidth"


def test_a_smaller_circuit_passes_one_that_does_not_fit_until_that_is_overdue() -> None:
    held = exhausted(patience=6)
    held.offer(circuit("large:1", size=90, strength=0.9))
    for number in range(3):
        held.offer(circuit(f"small:{number}", size=20, strength=0.1))
        assert ids(held.tick()) == [f"small:{number}"]
    assert "large:1" in held
    for number in range(3, 99):
        held.offer(circuit(f"small:{number}", size=10, strength=1.0, fast_track=True))
        if "large:1" in (moved := ids(held.tick())):
            break
        assert number < 5 or not moved, "nothing passes what is overdue"
    assert number < 30


def test_what_does_not_fit_stays_where_it_is_and_is_looked_at_once_a_tick() -> None:
    held = exhausted()
    held.offer(circuit("a:1", size=95))
    for waited in range(1, 5):
        assert held.tick() == []
        stats = held.stats
        assert (stats.depth, stats.oldest_ticks, stats.rejected) == (1, waited, 0)


def test_offers_are_turned_away_when_there_is_no_place_and_counted() -> None:
    held = exhausted(length=3, most_per_agent=2, reserve=1)
    outcomes = [
        held.offer(circuit(name, size=95, critical=critical))
        for name, critical in (
            ("a:1", False),
            ("a:1", False),
            ("a:2", False),
            ("a:3", False),
            ("b:1", False),
            ("c:1", False),
            ("c:2", True),
            ("c:3", True),
        )
    ]
    assert outcomes == [
        Offer.TAKEN,
        Offer.DUPLICATE,
        Offer.TAKEN,
        Offer.AGENT_FULL,
        Offer.TAKEN,
        Offer.FULL,
        Offer.TAKEN,
        Offer.FULL,
    ]
    stats = held.stats
    assert (stats.offered, stats.rejected, stats.duplicates) == (8, 3, 1)
    assert stats.rejection_rate == pytest.approx(3 / 8)


def test_a_circuit_is_refused_when_it_moved_through_here_before() -> None:
    held = queue()
    held.offer(circuit("a:1"))
    held.tick()
    assert held.offer(circuit("a:1")) is Offer.DUPLICATE and held.tick() == []


def test_a_circuit_is_not_taken_when_it_may_go_no_further_or_lies_elsewhere() -> None:
    held = queue()
    assert held.offer(circuit("a:1", top=levels.Level.AGENT)) is Offer.AT_TOP
    with pytest.raises(errors.InvalidInputError, match="lies in layer swarm"):
        held.offer(circuit("a:1", level=levels.Level.SWARM))
    assert len(held) == 0


def test_a_circuit_keeps_its_place_when_it_is_replaced_and_none_when_it_is_withdrawn() -> None:
    held = exhausted()
    held.offer(circuit("a:1", size=95))
    held.tick()
    assert held.replace(circuit("a:1", size=30, fast_track=True))
    assert not held.replace(circuit("a:2"))
    assert held.stats.oldest_ticks == 1 and held.waiting[0].fast_track
    assert held.withdraw("a:1") and not held.withdraw("a:1")
    assert held.offer(circuit("a:1")) is Offer.TAKEN


def test_waits_are_measured_from_offer_to_move() -> None:
    held = queue()
    held.offer(circuit("a:1", size=1000))
    held.offer(circuit("a:2", size=1000))
    held.tick()
    assert held.stats.wait_mean_ticks == 1
    ticks_until(held, "a:2")
    assert held.stats.wait_mean_ticks == (1 + 191) / 2


load = st.lists(
    st.lists(
        st.tuples(
            st.integers(2, 60),
            st.floats(0, 1),
            st.booleans(),
            st.sampled_from([False, False, False, True]),
            st.integers(0, 2),
        ),
        max_size=4,
    ),
    min_size=1,
    max_size=60,
)
"""Tick by tick: size, strength, fast track, critical, agent."""


@hypothesis.settings(deadline=None, max_examples=150)
@hypothesis.given(load, st.floats(0.5, 20), st.integers(1, 8), st.integers(1, 12))
def test_the_promises_of_a_queue_hold_whatever_comes(
    ticks: list[list[tuple[int, float, bool, bool, int]]],
    allowance: float,
    length: int,
    patience: int,
) -> None:
    held = queue(allowance, length=length, patience=patience, most_per_agent=5, reserve=2)
    arrived: dict[str, int] = {}
    moved: dict[str, int] = {}
    largest, within, emergency = 0, 0, 0
    bound = patience + length * (1 + 60 / allowance)
    now = 0
    while now < len(ticks) or len(held):
        for number, (size, strength, fast, critical, agent) in enumerate(
            ticks[now] if now < len(ticks) else ()
        ):
            name = f"{agent}:{now}.{number}"
            one = circuit(name, size, strength, fast_track=fast, critical=critical)
            if held.offer(one) is Offer.TAKEN:
                arrived[name] = now
                largest = max(largest, 0 if critical else size)
        assert len(held) <= length + 2
        capacity = held.capacity
        now += 1
        for one in held.tick():
            assert one.id in arrived and one.id not in moved, "taken once, moved once"
            moved[one.id] = now
            within += 0 if one.critical else one.size
            emergency += one.size if one.critical else 0
            if not one.critical:
                assert now - arrived[one.id] <= bound
        stats = held.stats
        assert 0 <= stats.tokens <= capacity
        assert within <= now * allowance + 10 * allowance + largest + 1e-6
        assert (stats.moved_parameters, stats.emergency_parameters) == (within, emergency)
        assert len(arrived) == len(moved) + stats.depth, "nothing is lost"
        assert now < len(ticks) + bound + len(arrived), "it runs empty"


@pytest.mark.parametrize(("size", "earliest"), [(4, 1), (60, 20)])
def test_a_weak_circuit_moves_in_time_when_strong_ones_never_stop_coming(
    size: int, earliest: int
) -> None:
    held = queue(allowance=5.0, length=8, patience=20, most_per_agent=8)
    held.offer(circuit("strong:first", size=60, strength=1.0, fast_track=True))
    held.tick()
    held.offer(circuit("weak:1", size=size, strength=0.0))
    bound = 20 + 8 * (1 + 60 / 5)
    for tick in range(1, 1000):
        for number in range(4):
            held.offer(circuit(f"strong:{tick}.{number}", 60, 1.0, fast_track=True))
        if "weak:1" in ids(held.tick()):
            break
    assert earliest <= tick <= bound, "it waits for its turn, and not for ever"


def test_the_whole_bandwidth_is_given_when_there_is_always_something_to_move() -> None:
    held = queue(allowance=5.0)
    for tick in range(2000):
        held.offer(circuit(f"a:{tick}", size=30))
        held.tick()
    assert held.stats.moved_parameters >= 2000 * 5.0


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(load, load)
def test_a_queue_is_restored_exactly_whatever_came(
    before: list[list[tuple[int, float, bool, bool, int]]],
    after: list[list[tuple[int, float, bool, bool, int]]],
) -> None:
    def run(
        held: migration_queue.MigrationQueue, ticks: list[Any], start: int
    ) -> list[tuple[str, ...]]:
        seen = []
        for at, offers in enumerate(ticks, start):
            for number, (size, strength, fast, critical, agent) in enumerate(offers):
                held.offer(
                    circuit(
                        f"{agent}:{at}.{number}", size, strength, fast_track=fast, critical=critical
                    )
                )
            seen.append(tuple(ids(held.tick())))
        return seen

    held, again = queue(0.7, length=5), queue(0.7, length=5)
    run(held, before, 0)
    again.offer(circuit("other:1"))
    again.tick()
    again.restore(held.state())
    for one, other in zip(held.waiting, again.waiting, strict=True):
        assert (one.id, one.level, one.top, one.channels) == (
            other.id,
            other.level,
            other.top,
            other.channels,
        )
        assert isinstance(other.level, levels.Level)
        assert torch.equal(one.pieces["q"].a, other.pieces["q"].a)
        assert torch.equal(one.pieces["q"].b, other.pieces["q"].b)
    assert held.stats == again.stats
    assert run(held, after, len(before)) == run(again, after, len(before))
    states = [one.state() for one in (held, again)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


same_size = st.lists(
    st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.booleans()), max_size=3),
    min_size=1,
    max_size=40,
)
"""Tick by tick: strength, fast track, critical."""


@hypothesis.settings(deadline=None, max_examples=100)
@hypothesis.given(same_size, st.integers(2, 60), st.floats(0.5, 20))
def test_no_circuit_is_late_when_the_bandwidth_is_given_in_order(
    ticks: list[list[tuple[float, bool, bool]]], size: int, allowance: float
) -> None:
    held = queue(allowance, length=200, most_per_agent=200, patience=100_000)
    now = 0
    while now < len(ticks) or len(held):
        for number, (strength, fast, critical) in enumerate(ticks[now] if now < len(ticks) else ()):
            held.offer(
                circuit(f"a:{now}.{number}", size, strength, fast_track=fast, critical=critical)
            )
        held.tick()
        now += 1
        assert held.stats.late_ticks == 0


def test_a_circuit_is_late_when_weaker_ones_keep_taking_the_bandwidth() -> None:
    held = queue(length=64, most_per_agent=64)
    held.offer(circuit("a:filler", size=500))
    held.tick()
    held.offer(circuit("a:large", size=400, strength=1.0))
    for tick in range(120):
        held.offer(circuit(f"a:{tick}", size=6, strength=0.1))
        held.tick()
        if tick == 50:
            assert held.stats.late_ticks == 0
    assert "a:large" in held and held.stats.late_ticks >= 5


def test_circuits_are_hopeless_that_the_bandwidth_cannot_carry_before_they_are_overdue() -> None:
    held = queue(patience=200, length=64, most_per_agent=64)
    for number in range(30):
        held.offer(circuit(f"a:{number}", size=135))
    # 27 ticks each; the first and the burst are free, so that 8 go in 200 ticks.
    assert held.stats.depth == 30 and 20 <= held.stats.hopeless <= 23
