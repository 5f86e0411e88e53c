from __future__ import annotations

import dataclasses

import pytest
import torch

from benchmarks.hierarchy import load
from services.hierarchy import hierarchy
from shared import errors
from shared.hierarchy import levels, messages, weights
from shared.hierarchy.levels import Level
from tests.unit.hierarchy import making


def test_new_hierarchy_adds_nothing() -> None:
    held = making.hierarchy()
    assert held.snapshot().version == 0
    assert torch.equal(held.forward(torch.ones(3, 12), "layers.0.q_proj"), torch.zeros(3, 10))


def test_forward_is_the_sum_of_the_stack() -> None:
    held = making.loaded(5)
    x = torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(0))
    private = {
        level: making.layer(making.SPECS[level].rank, torch.Generator().manual_seed(1))
        for level in levels.PRIVATE
    }
    stack = {**held.snapshot().layers, **private}
    wanted = sum(x @ one["layers.0.q_proj"].a @ one["layers.0.q_proj"].b for one in stack.values())
    found = held.forward(x, "layers.0.q_proj", private)
    assert torch.allclose(found, wanted, atol=1e-5) and found.abs().max() > 0
    with pytest.raises(errors.NotFoundError, match="no module 'lm_head'"):
        held.forward(x, "lm_head")


def test_layers_move_by_one_minus_their_inertia() -> None:
    held = making.hierarchy()
    before = held.snapshot()
    sent = making.submission()
    held.submit(sent)
    held.system_tick()
    path = "layers.0.q_proj"
    for level in levels.SHARED:
        step = held.snapshot().layers[level][path].b - before.layers[level][path].b
        rate = held.settings.outer_rate * (1 - making.SPECS[level].inertia)
        wanted = rate * (1 - held.settings.layer.decay_free) * sent.shared[level][path].b
        assert torch.allclose(step, wanted, atol=1e-7)


def test_submission_counts_once_when_it_is_sent_again_before_and_after_its_tick() -> None:
    once, often = making.hierarchy(), making.hierarchy()
    once.submit(making.submission())
    assert [often.submit(making.submission()) for _ in range(2)] == [True, False]
    for held in (once, often):
        held.system_tick()
    assert not often.submit(making.submission())
    assert often.last_sequence("ada") == 1 and often.waiting == 0
    for held in (once, often):
        held.system_tick()
    assert once.digest() == often.digest()


def test_snapshot_stays_as_it_was_while_ticks_go_on() -> None:
    held = making.hierarchy()
    held.submit(making.submission())
    held.system_tick()
    taken = held.snapshot()
    copies = [pair.b.clone() for layer in taken.layers.values() for pair in layer.values()]
    for at in range(10):
        load.send(held, at, making.SEED)
        held.system_tick()
    after = [pair.b for layer in taken.layers.values() for pair in layer.values()]
    assert all(torch.equal(one, other) for one, other in zip(copies, after, strict=True))
    assert held.snapshot().version > taken.version
    with pytest.raises(TypeError):
        taken.layers[Level.SWARM] = {}  # type: ignore[index]


def test_newest_snapshots_are_kept_and_older_ones_let_go() -> None:
    held = making.loaded(30, kept_snapshots=3)
    newest = held.snapshot().version
    assert held.snapshot(newest - 2).version == newest - 2
    with pytest.raises(errors.NotFoundError, match="snapshot 1 is not kept"):
        held.snapshot(1)


def test_version_stays_when_nothing_was_learned() -> None:
    held = making.loaded(10)
    while held.state.coordinator.waiting:
        held.state.coordinator.withdraw(held.state.coordinator.waiting[0].id)
    before = held.snapshot()
    reports = [held.system_tick() for _ in range(3)]
    assert [report.tick for report in reports] == [11, 12, 13]
    changed = [report for report in reports if report.version != before.version]
    # Homeostasis may still draw a layer to its budget; nothing decays.
    assert all(report.homeostasis[Level.SWARM].actions for report in changed) or not changed


@pytest.mark.parametrize(("behind", "taken"), [(0, True), (2, True), (3, False), (-1, False)])
def test_stale_submission_counts_up_to_a_bound(behind: int, taken: bool) -> None:
    held = making.hierarchy(most_stale=2)
    for sequence in range(1, 5):
        held.submit(making.submission("eve", sequence, version=held.snapshot().version))
        held.system_tick()
    before = held.snapshot()
    held.submit(making.submission("ada", version=before.version - behind))
    held.system_tick()
    [told] = held.settlements("ada", 0)
    assert (told.refused == "") is taken
    assert making.same(held.snapshot(), before) is not taken
    if not taken:
        assert "learn on a new one" in told.refused and told.factors == {}


def test_settlements_are_kept_until_the_agent_has_taken_them() -> None:
    held = making.hierarchy()
    for sequence in (1, 2, 3):
        held.submit(making.submission(sequence=sequence, version=held.snapshot().version))
        held.system_tick()
    assert [one.sequence for one in held.settlements("ada", 0)] == [1, 2, 3]
    assert [one.version for one in held.settlements("ada", 0)] == [1, 2, 3]
    assert [one.sequence for one in held.settlements("ada", 2)] == [3]
    held.system_tick()
    assert [one.sequence for one in held.settlements("ada", 0)] == [3]
    assert held.settlements("nobody", 0) == ()


def test_only_so_many_agents_are_let_in() -> None:
    held = making.hierarchy(most_agents=2)
    for agent in ("ada", "eve"):
        held.submit(making.submission(agent))
    with pytest.raises(errors.CapacityError, match="the hierarchy has 2 agents"):
        held.submit(making.submission("bob"))
    held.system_tick()
    assert held.submit(making.submission("ada", 2))


def alike(held: hierarchy.LoRAHierarchy, agent: str, sequence: int) -> messages.Submission:
    """A submission whose agent layer moves as the swarm layer does."""
    swarm = held.snapshot().layers[Level.SWARM]
    sent = making.submission(agent, sequence, seed=1, version=held.snapshot().version)
    products = weights.product_change(swarm, sent.shared[Level.SWARM])
    return dataclasses.replace(sent, private={Level.AGENT: _low(products)})


def test_agent_does_not_confirm_itself_however_often_it_says_the_same() -> None:
    held = making.hierarchy()
    for sequence in range(1, 6):
        held.submit(alike(held, "ada", sequence))
        held.system_tick()
    told = held.settlements("ada", 0)
    assert {one.mark for one in told} == {messages.Mark.NORMAL}
    assert {one.alignment for one in told} == {0.0}


def test_agent_that_is_alone_is_confirmed_by_what_another_taught_the_swarm() -> None:
    held = making.hierarchy()
    held.submit(alike(held, "eve", 1))
    held.system_tick()
    held.submit(alike(held, "ada", 1))
    held.system_tick()
    [told] = held.settlements("ada", 0)
    assert told.mark is messages.Mark.FAST_TRACK


def _low(products: weights.Weights) -> weights.Weights:
    """A change that fits the agent layer's rank."""
    found = {}
    for path, pair in products.items():
        left, size, right = torch.linalg.svd(pair.a @ pair.b, full_matrices=False)
        found[path] = weights.Factors(left[:, :6] * size[:6], right[:6])
    return found


def test_agents_that_learn_the_same_are_on_the_fast_track() -> None:
    held = making.hierarchy()
    for agent in ("ada", "eve"):
        held.submit(alike(held, agent, 1))
    report = held.system_tick()
    assert report.marks[messages.Mark.FAST_TRACK] == 2
    [told] = held.settlements("ada", 0)
    assert told.factors[Level.AGENT] > 1.0


def test_circuit_of_an_agent_moves_to_the_swarm_and_the_agent_is_told() -> None:
    held = making.hierarchy()
    circuit = making.circuit("ada:1")
    held.submit(making.submission(circuits=(circuit,), scale=0.0))
    report = held.system_tick()
    [told] = held.settlements("ada", 0)
    assert report.moved == ("ada:1",) and told.moved == ("ada:1",)
    swarm = held.snapshot().layers[Level.SWARM]
    for path, piece in circuit.pieces.items():
        assert torch.allclose(swarm[path].a @ swarm[path].b, piece.a @ piece.b, atol=1e-5)


def test_circuit_goes_on_to_its_top_and_no_further() -> None:
    held = making.hierarchy()
    held.submit(making.submission(circuits=(making.circuit("ada:1", top=Level.DOMAIN),), scale=0.0))
    path = "layers.0.q_proj"
    product = making.circuit("ada:1").pieces[path]
    for _ in range(400):
        held.system_tick()
    layers = held.snapshot().layers
    found = {
        level: weights.cosine({path: layers[level][path]}, {path: product}) for level in layers
    }
    assert found[Level.DOMAIN] > 0.99 and found[Level.FOUNDATION] == 0.0
    assert weights.norm({path: layers[Level.SWARM][path]}) < 0.01 * weights.norm({path: product})


def test_forward_is_the_same_for_the_owner_before_and_after_a_circuit_moved() -> None:
    held = making.hierarchy()
    x = torch.randn(4, 12, generator=torch.Generator().manual_seed(2))
    path = "layers.0.q_proj"
    circuit = making.circuit("ada:1")
    before = held.forward(x, path, {Level.AGENT: circuit.pieces})
    held.submit(making.submission(circuits=(circuit,), scale=0.0))
    held.system_tick()
    assert torch.allclose(held.forward(x, path), before, atol=1e-4)


def test_circuit_that_is_too_large_is_not_taken_from_an_agent() -> None:
    held = making.hierarchy()
    draw = torch.Generator().manual_seed(0)
    shape = making.SHAPES["layers.1.q_proj"]
    huge = making.circuit(
        channels={"layers.1.q_proj": (1,)},
        pieces={"layers.1.q_proj": making.factors(shape, 1, draw, scale=100.0)},
    )
    held.submit(making.submission(circuits=(huge,), scale=0.0))
    report = held.system_tick()
    assert report.moved == () and report.rejected_circuits == 1


def test_offered_circuit_of_the_swarm_moves_to_the_domain() -> None:
    held = making.loaded(6)
    pieces = making.circuit("x", level=Level.SWARM).pieces
    circuit = making.circuit("x:1", level=Level.SWARM, agent="", critical=True, pieces=pieces)
    before = held.snapshot().layers
    swarm = before[Level.SWARM]["layers.1.q_proj"]
    channel = weights.Factors(swarm.a[:, [1]], swarm.b[[1]])
    held.migrate_circuit(circuit)
    held.migrate_circuit(circuit)
    report = held.system_tick()
    assert "x:1" in report.moved
    after = held.snapshot().layers[Level.DOMAIN]
    gained = weights.summed([after, before[Level.DOMAIN]], [1.0, -1.0])["layers.1.q_proj"]
    assert weights.cosine({"p": gained}, {"p": channel}) > 0.9
    with pytest.raises(errors.InvalidInputError, match="from which nothing moves"):
        held.migrate_circuit(dataclasses.replace(circuit, level=Level.FOUNDATION))


def test_frozen_layer_stays_as_it_is_and_circuits_wait() -> None:
    held = making.hierarchy()
    held.set_frozen(Level.SWARM, True)
    before = held.snapshot().layers[Level.SWARM]
    held.submit(making.submission(circuits=(making.circuit("ada:1"),)))
    report = held.system_tick()
    after = held.snapshot().layers[Level.SWARM]
    assert all(torch.equal(before[path].b, after[path].b) for path in before)
    assert report.moved == () and report.waiting_circuits == 1
    held.set_frozen(Level.SWARM, False)
    assert held.system_tick().moved == ("ada:1",)


def test_roll_back_is_a_new_version_of_old_layers() -> None:
    held = making.loaded(10)
    healthy = held.snapshot(held.state.healthy)
    with pytest.raises(errors.NotFoundError):
        held.roll_back(-5)
    version = held.roll_back()
    assert version >= healthy.version and making.same(held.snapshot(), healthy)
