"""What agents may do with circuits, and what not."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from shared import errors
from shared.hierarchy import messages, weights
from shared.hierarchy.levels import Level
from tests.unit.hierarchy import making


def test_settlement_tells_which_circuits_wait_until_they_have_moved() -> None:
    held = making.hierarchy(shares={Level.AGENT: 5e-3, Level.SWARM: 1e-3, Level.DOMAIN: 1e-3})
    circuits = tuple(making.circuit(f"ada:{at}", seed=at) for at in range(3))
    held.submit(making.submission(circuits=circuits, scale=0.0))
    told: list[messages.Settlement] = []
    for sequence in range(2, 400):
        held.system_tick()
        told += held.settlements("ada", sequence - 2)
        if not told[-1].waiting:
            break
        held.submit(
            making.submission(sequence=sequence, scale=0.0, version=held.snapshot().version)
        )
    assert len(told) > 10, "bandwidth is narrow"
    gone: set[str] = set()
    for one in told:
        gone |= set(one.moved)
        assert gone | set(one.waiting) == {"ada:0", "ada:1", "ada:2"}
        assert not gone & set(one.waiting)


def test_agent_can_not_make_its_circuit_an_emergency_or_send_it_past_the_domain() -> None:
    held = making.hierarchy(shares={Level.AGENT: 1e-6, Level.SWARM: 1e-6, Level.DOMAIN: 1e-6})
    forged = [
        making.circuit(f"ada:{at}", seed=at, critical=True, fast_track=True, top=Level.FOUNDATION)
        for at in range(4)
    ]
    held.submit(making.submission(circuits=tuple(forged), scale=0.0))
    held.system_tick()
    left = [one for one in held.state.coordinator.waiting if one.level is Level.AGENT]
    assert len(left) == 3, "the first fits into an empty channel, and no other"
    assert not any(one.critical or one.fast_track for one in left)
    assert {one.top for one in left} == {Level.DOMAIN}


def test_circuit_that_is_large_beside_what_the_shared_layers_hold_is_not_taken() -> None:
    held = making.hierarchy()
    path = "layers.1.q_proj"
    draw = torch.Generator().manual_seed(0)
    large = making.circuit(
        channels={path: (1,)},
        pieces={path: making.factors(making.SHAPES[path], 1, draw, scale=0.6)},
    )
    assert 2.0 < weights.norm(large.pieces) < held.settings.most_piece_norm
    held.submit(making.submission(circuits=(large,), scale=0.1))
    report = held.system_tick()
    assert report.moved == () and report.rejected_circuits == 1
    # Where the layers hold as much, it is nothing special.
    held.submit(making.submission(sequence=2, version=held.snapshot().version, scale=1.0))
    held.system_tick()
    again = dataclasses.replace(large, id="ada:2")
    held.submit(making.submission(sequence=3, version=held.snapshot().version, circuits=(again,)))
    assert held.system_tick().moved == ("ada:2",)


def test_circuit_under_another_agents_name_is_refused() -> None:
    held = making.hierarchy()
    forged = dataclasses.replace(making.circuit("ada:1"), id="bob:1")
    with pytest.raises(errors.InvalidInputError, match="must be named ada:NUMBER"):
        held.submit(making.submission(circuits=(forged,)))


def test_agent_that_comes_when_nobody_else_does_can_not_drown_what_the_swarm_knows() -> None:
    held = making.hierarchy()
    for turn in range(1, 4):
        for at, agent in enumerate(("ada", "eve", "bob")):
            sent = making.submission(agent, turn, seed=at, version=held.snapshot().version)
            held.submit(sent)
            held.system_tick()
    before = held.snapshot().layers[Level.SWARM]
    sent = making.submission("bob", 4, seed=9, version=held.snapshot().version, scale=1e5)
    held.submit(sent)
    held.system_tick()
    after = held.snapshot().layers[Level.SWARM]
    change = weights.norm(weights.summed([after, before], [1.0, -1.0]))
    assert 0 < change < 3.0 * weights.norm(before)
