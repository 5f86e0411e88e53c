from __future__ import annotations

import dataclasses

import pytest
import torch

from services.hierarchy import hierarchy
from shared import errors
from shared.hierarchy import agent, agent_state, levels, messages, signatures, trajectories
from shared.hierarchy.levels import Level
from tests.unit.hierarchy import making


def made(name: str = "ada", **changed: object) -> agent.AgentLayers:
    return agent.AgentLayers(
        name,
        making.FRAME,
        agent.AgentSettings(**changed),  # type: ignore[arg-type]
    )


def learn(own: agent.AgentLayers, version: int = 0, seed: int = 0, scale: float = 0.01) -> None:
    draw = torch.Generator().manual_seed(seed)
    own.learned(
        version,
        {level: making.layer(making.SPECS[level].rank, draw, scale) for level in levels.SHARED},
        {level: making.layer(making.SPECS[level].rank, draw, scale) for level in levels.PRIVATE},
        examples=2,
    )


def watch(own: agent.AgentLayers, generations: int, level: Level, seed: int = 0) -> None:
    """Generations of one kind, in which channel 1 of each module of a layer answers."""
    draw = torch.Generator().manual_seed(seed)
    kind = torch.randn(signatures.SIZE, generator=torch.Generator().manual_seed(99))
    for number in range(generations):
        signature = torch.nn.functional.normalize(
            kind + 0.01 * torch.randn(signatures.SIZE, generator=draw), dim=0
        )
        seen = trajectories.Trajectory(
            prompt=torch.tensor([seed, number], dtype=torch.int32),
            answer=torch.tensor([1], dtype=torch.int32),
            top_ids=torch.zeros(1, 1, dtype=torch.int32),
            top_logits=torch.zeros(1, 1, dtype=torch.float16),
            log_sums=torch.zeros(1),
            activations={},
            signature=signature.half(),
        )
        activity = {level: {path: _one(making.SPECS[level].rank) for path in making.SHAPES}}
        own.observe(seen, activity)


def _one(rank: int) -> torch.Tensor:
    active = torch.zeros(rank)
    active[1] = 1.0
    return active


def settled(own: agent.AgentLayers, **changed: object) -> messages.Settlement:
    fields: dict[str, object] = {
        "agent": own.agent,
        "sequence": own.sequence,
        "version": 1,
        "mark": messages.Mark.NORMAL,
        "alignment": 0.0,
        "factors": {},
    }
    return messages.Settlement(**(fields | changed))  # type: ignore[arg-type]


def test_nothing_is_submitted_when_nothing_was_learned() -> None:
    assert made().submission() is None


def test_rounds_until_a_submission_are_added_up() -> None:
    own = made()
    learn(own, version=3, seed=1)
    learn(own, version=2, seed=2)
    sent = own.submission()
    assert sent is not None and own.submission() is None
    one, other = made(), made()
    learn(one, seed=1)
    learn(other, seed=2)
    parts = [held.pending.shared[Level.SWARM]["layers.0.q_proj"].a for held in (one, other)]
    assert torch.equal(sent.shared[Level.SWARM]["layers.0.q_proj"].a, sum(parts))
    assert (sent.sequence, sent.version, sent.examples) == (1, 2, 4)


def test_private_changes_are_sent_as_the_products_that_they_make() -> None:
    own = made()
    learn(own)
    delta = own.pending.private[Level.AGENT]["layers.0.q_proj"]
    before = own.weights[Level.AGENT]["layers.0.q_proj"]
    sent = own.submission()
    assert sent is not None
    found = sent.private[Level.AGENT]["layers.0.q_proj"]
    wanted = (before.a + delta.a) @ (before.b + delta.b) - before.a @ before.b
    assert torch.allclose(found.a @ found.b, wanted, atol=1e-6)


def test_own_layers_move_by_the_settlements_factor_and_only_then() -> None:
    moves = []
    for factor in (1.0, 0.5):
        own = made(use_homeostasis=False)
        learn(own)
        before = own.weights[Level.AGENT]["layers.0.q_proj"].b.clone()
        own.submission()
        assert torch.equal(own.weights[Level.AGENT]["layers.0.q_proj"].b, before)
        told = settled(own, factors={Level.AGENT: factor})
        own.settle(told)
        own.settle(told)
        moves.append(own.weights[Level.AGENT]["layers.0.q_proj"].b - before)
    assert moves[0].abs().max() > 0
    assert torch.allclose(moves[1], 0.5 * moves[0], atol=1e-7)


def test_changes_whose_settlement_was_lost_are_applied_with_the_next() -> None:
    own, other = made(use_homeostasis=False), made(use_homeostasis=False)
    for held in (own, other):
        for seed in (1, 2):
            learn(held, seed=seed)
            held.submission()
    own.settle(settled(own, sequence=2))
    for sequence in (1, 2):
        other.settle(settled(other, sequence=sequence))
    one, two = (held.weights[Level.CONTEXT]["layers.1.q_proj"].b for held in (own, other))
    assert torch.equal(one, two) and own.unsettled == []


def test_settlement_of_another_agent_or_of_no_submission_is_refused() -> None:
    own = made()
    for wrong in (settled(own, agent="eve"), settled(own, sequence=1)):
        with pytest.raises(errors.InvalidInputError, match="which made 0 submissions"):
            own.settle(wrong)


def test_what_is_learned_gathers_when_too_much_is_on_its_way() -> None:
    own = made(most_unsettled=2)
    for seed in range(3):
        learn(own, seed=seed)
        sent = own.submission()
    assert sent is None and own.pending.examples == 2
    own.settle(settled(own, sequence=1))
    assert own.submission() is not None


def test_recurring_circuit_moves_from_context_to_agent_and_adds_the_same() -> None:
    own = made(use_homeostasis=False, share=10.0)
    draw = torch.Generator().manual_seed(0)
    own.learned(0, {}, {Level.CONTEXT: making.layer(2, draw, 0.3)}, examples=1)
    own.submission()
    own.settle(settled(own))
    path = "layers.0.q_proj"
    before = _added(own, path)
    context = own.weights[Level.CONTEXT][path]
    watch(own, 60, Level.CONTEXT)
    own.maintain()
    after = own.weights[Level.CONTEXT][path]
    assert context.b[1].abs().max() > 0 and torch.equal(after.b[1], torch.zeros(10))
    assert torch.allclose(_added(own, path), before, atol=1e-5)


def _added(own: agent.AgentLayers, path: str) -> torch.Tensor:
    pairs = [layer[path] for layer in own.weights.values()]
    return pairs[0].a @ pairs[0].b + pairs[1].a @ pairs[1].b


def offering() -> tuple[agent.AgentLayers, messages.Submission]:
    """An agent whose agent layer has a circuit, and the submission that brings it."""
    own = made(use_homeostasis=False)
    learn(own, scale=0.3)
    own.submission()
    own.settle(settled(own))
    watch(own, 60, Level.AGENT)
    learn(own, seed=5)
    sent = own.submission()
    assert sent is not None and sent.circuits
    return own, sent


def test_agent_lets_go_of_a_circuit_that_is_in_the_swarm_and_the_model_computes_the_same() -> None:
    own, sent = offering()
    held = hierarchy.LoRAHierarchy(making.FRAME)
    [circuit] = sent.circuits
    path = next(iter(circuit.channels))
    x = torch.randn(4, 12, generator=torch.Generator().manual_seed(0))
    before = held.forward(x, path, own.weights)
    held.submit(dataclasses.replace(sent, shared={}, private={}))
    held.system_tick()
    [told] = held.settlements("ada", 0)
    assert told.moved == (circuit.id,)
    own.unsettled = [dataclasses.replace(one, private={}) for one in own.unsettled]
    own.settle(told)
    assert torch.allclose(held.forward(x, path, own.weights), before, atol=1e-4)
    numbers = list(circuit.channels[path])
    assert own.weights[Level.AGENT][path].b[numbers].abs().max() == 0
    assert own.offered == {} and own.detectors[Level.AGENT].waiting == ()


def test_what_was_learned_of_a_channel_goes_with_it() -> None:
    own, sent = offering()
    [circuit] = sent.circuits
    path, numbers = next(iter(circuit.channels.items()))
    learn(own, seed=8)
    own.settle(settled(own, moved=(circuit.id,)))
    left = own.pending.private[Level.AGENT][path]
    assert left.b[list(numbers)].abs().max() == 0 and left.b.abs().max() > 0


def test_channel_that_became_another_is_not_let_go_of() -> None:
    own, sent = offering()
    [circuit] = sent.circuits
    path, numbers = next(iter(circuit.channels.items()))
    own.unsettled = []
    learn(own, seed=11, scale=5.0)
    own.submission()
    own.settle(settled(own))
    before = own.weights[Level.AGENT][path].b.clone()
    learn(own, seed=12, scale=1e-6)
    own.submission()
    own.settle(settled(own, moved=(circuit.id,)))
    after = own.weights[Level.AGENT][path].b
    assert after[list(numbers)].abs().max() > 0.5 * before[list(numbers)].abs().max()


def test_circuit_is_not_offered_again_while_it_waits_in_the_hierarchy_however_long() -> None:
    own, _ = offering()
    [name] = own.offered
    for seed in range(200):
        own.settle(settled(own, waiting=(name,)))
        assert name in own.offered and name in own.detectors[Level.AGENT].waiting
        learn(own, seed=seed, scale=1e-6)
        sent = own.submission()
        assert sent is not None and sent.circuits == ()
    [path, *_] = own.offered[name].circuit.channels
    numbers = list(own.offered[name].circuit.channels[path])
    own.settle(settled(own, moved=(name,)))
    assert own.weights[Level.AGENT][path].b[numbers].abs().max() == 0, "it counts once"


def test_circuit_may_be_offered_again_some_time_after_the_hierarchy_let_it_go() -> None:
    own, _ = offering()
    own.settings = dataclasses.replace(own.settings, patience=2)
    [name] = own.offered
    own.offered[name] = dataclasses.replace(own.offered[name], patience=2)
    own.settle(settled(own))
    assert name in own.offered
    learn(own, seed=21)
    own.submission()
    own.settle(settled(own))
    assert name not in own.offered and name not in own.detectors[Level.AGENT].waiting


def test_circuit_is_not_given_up_by_settlements_of_submissions_before_it() -> None:
    own = made(use_homeostasis=False, patience=1)
    learn(own, scale=0.3)
    own.submission()
    own.settle(settled(own))
    learn(own, seed=1)
    own.submission()
    watch(own, 60, Level.AGENT)
    learn(own, seed=2)
    sent = own.submission()
    assert sent is not None and len(sent.circuits) == 1
    own.settle(settled(own, sequence=own.sequence - 1))
    assert list(own.offered) == [sent.circuits[0].id]
    own.settle(settled(own))
    assert own.offered == {}


def test_everything_is_the_same_after_a_restart() -> None:
    own, _ = offering()
    learn(own, seed=6)
    data = agent_state.to_bytes(own)
    again = made(use_homeostasis=False)
    agent_state.restore(again, data)
    assert agent_state.to_bytes(again) == data
    for held in (own, again):
        held.settle(settled(held, moved=tuple(held.offered), factors={Level.AGENT: 0.7}))
        watch(held, 5, Level.AGENT, seed=3)
        learn(held, seed=7)
        held.submission()
    assert agent_state.to_bytes(again) == agent_state.to_bytes(own)


def test_file_of_another_agent_is_refused() -> None:
    with pytest.raises(errors.IntegrityError, match="this file is of 'eve'"):
        agent_state.restore(made(), agent_state.to_bytes(made("eve")))


def test_ablations_leave_circuits_alone() -> None:
    own = made(use_detection=False)
    learn(own, scale=0.3)
    own.submission()
    own.settle(settled(own))
    watch(own, 60, Level.AGENT)
    learn(own)
    sent = own.submission()
    assert sent is not None and sent.circuits == ()
