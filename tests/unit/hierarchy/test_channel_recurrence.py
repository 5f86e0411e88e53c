from __future__ import annotations

import pytest
import torch

from services.hierarchy import channel_recurrence
from shared.hierarchy import weights
from shared.hierarchy.levels import Level
from tests.unit.hierarchy import making

RANK = 5


def noted(ticks: int, same: bool, seed: int = 0) -> channel_recurrence.ChannelRecurrence:
    """One whose channel 2 of each module moves one way each tick, the others any way."""
    found = channel_recurrence.ChannelRecurrence(
        Level.SWARM, making.SHAPES, RANK, channel_recurrence.RecurrenceSettings()
    )
    draw = torch.Generator().manual_seed(seed)
    before = making.layer(RANK, draw)
    way = making.layer(RANK, draw)
    for _ in range(ticks):
        change = making.layer(RANK, draw)
        if same:
            for path, pair in change.items():
                pair.a[:, 2], pair.b[2] = way[path].a[:, 2] * 3.0, way[path].b[2] * 3.0
        found.note(before, change)
    return found


def test_channel_that_moves_one_way_recurs_and_the_others_do_not() -> None:
    found = noted(60, same=True).autocorrelation()
    others = [0, 1, 3, 4]
    assert found[:, 2].min() == pytest.approx(1.0, abs=1e-5)
    assert found[:, others].max() < 0.3


def test_estimate_is_that_of_all_pairs_of_ticks() -> None:
    series = channel_recurrence.ChannelRecurrence(
        Level.SWARM, making.SHAPES, RANK, channel_recurrence.RecurrenceSettings()
    )
    draw = torch.Generator().manual_seed(3)
    before, base = making.layer(RANK, draw), making.layer(RANK, draw)
    path = "layers.0.v_proj"
    inner, outer = channel_recurrence._sketches(path, making.SHAPES[path])
    units, ticks, channel = [], 40, 1
    for _ in range(ticks):
        noise = making.layer(RANK, draw)
        change = {
            at: weights.Factors(base[at].a + noise[at].a, base[at].b + noise[at].b) for at in base
        }
        series.note(before, change)
        was, step = before[path], change[path]
        moved = (was.a + step.a)[:, [channel]] @ (was.b + step.b)[[channel]]
        moved = (
            moved
            - was.a[:, [channel]] @ was.b[[channel]]
            - step.a[:, [channel]] @ step.b[[channel]]
        )
        sketched = (inner @ moved @ outer.T).flatten()
        units.append((sketched / sketched.norm()).double())
    keep = 1 - 2 / 101
    share = torch.tensor([keep ** (ticks - 1 - at) for at in range(ticks)], dtype=torch.float64)
    share /= share.sum()
    cosines = torch.stack(units) @ torch.stack(units).T
    pairs = share[:, None] * share[None, :] * (1 - torch.eye(ticks, dtype=torch.float64))
    wanted = float((pairs * cosines).sum() / pairs.sum())
    found = float(series.autocorrelation()[1, channel])
    assert found == pytest.approx(wanted, abs=1e-4) and 0.2 < wanted < 0.8


def test_nothing_is_judged_when_it_moved_too_seldom() -> None:
    assert noted(15, same=True).autocorrelation().max() == 0.0


def test_circuits_are_the_strong_channels_that_recur() -> None:
    found = noted(60, same=True)
    layer = making.layer(RANK, torch.Generator().manual_seed(9))
    weak = "layers.1.q_proj"
    for path, pair in layer.items():
        pair.b[2] *= 0.01 if path == weak else 10.0
    circuits = found.circuits(layer)
    assert {circuit.id for circuit in circuits} == {
        "swarm:layers.0.q_proj:2",
        "swarm:layers.0.v_proj:2",
    }
    for circuit in circuits:
        [path] = circuit.pieces
        assert torch.equal(circuit.pieces[path].a[:, 0], layer[path].a[:, 2])
        assert circuit.level is Level.SWARM and circuit.top is Level.DOMAIN
    assert noted(60, same=False).circuits(layer) == []


def test_channel_begins_anew_when_it_was_let_go_of() -> None:
    found = noted(60, same=True)
    found.forget({"layers.0.q_proj": (2,)})
    assert found.autocorrelation()[0, 2] == 0.0 < found.autocorrelation()[1, 2]


def test_state_is_restored_to_the_bit() -> None:
    one, other = noted(30, same=True), noted(5, same=False, seed=4)
    other.restore(one.state())
    draws = [torch.Generator().manual_seed(5) for _ in range(2)]
    for recurring, draw in zip((one, other), draws, strict=True):
        recurring.note(making.layer(RANK, draw), making.layer(RANK, draw))
    assert all(torch.equal(one.state()[name], other.state()[name]) for name in one.state())
