"""The five layers as one card: the sum of what each adds, and nothing else."""

from __future__ import annotations

import pytest
import torch

from benchmarks.hierarchy import stacks
from services.inference import mixing
from shared import errors
from shared.cards import manifest as manifests
from shared.hierarchy import levels, stack, weights
from shared.lora import manager as managers
from shared.lora import tensors
from tests import tiny_model


@pytest.fixture
def base():
    return tiny_model.tiny_base()


def _reference(base):
    return manifests.BaseModelReference(
        id=base.id, revision=base.revision, fingerprint=base.fingerprint
    )


def _change(module):
    """(in, out), float64."""
    adapter = tensors.adapter_of(module, torch.float64)
    return adapter.lora_a @ adapter.lora_b * adapter.scale


def _sum(layers, path):
    return sum(layer[path].a.double() @ layer[path].b.double() for layer in layers.values())


@pytest.mark.parametrize("ranks", [stacks.SMALL_RANKS, stacks.FULL_RANKS])
def test_card_adds_the_sum_of_what_the_layers_add(base, ranks):
    made = stacks.stacked(base.model, ranks=ranks)
    card = made.to_card("agent", _reference(base))
    assert set(card.modules) == set(made.composed())
    for path, module in card:
        torch.testing.assert_close(
            _change(module), _sum(made.layers, path), rtol=1e-5, atol=1e-5, check_dtype=False
        )


def test_ranks_add_up_to_124_where_the_module_has_as_many():
    layers = {
        level: {"q_proj": weights.Factors(torch.randn(160, rank), torch.randn(rank, 130))}
        for level, rank in stacks.FULL_RANKS.items()
    }
    made = stack.Stack(1, layers)
    card = made.to_card("agent", _reference(tiny_model.tiny_base()))
    assert (card.rank, made.composed()["q_proj"].rank) == (124, 124)
    # Side by side, bit for bit.
    adapter = tensors.adapter_of(card.modules["q_proj"], torch.float32)
    assert torch.equal(adapter.lora_a, torch.cat([layers[one]["q_proj"].a for one in layers], 1))
    assert torch.equal(adapter.lora_b, torch.cat([layers[one]["q_proj"].b for one in layers], 0))
    assert card.side_a is not None and card.side_b is not None


def test_model_says_the_same_with_the_card_as_with_each_layer_added_by_hand(base):
    made = stacks.stacked(base.model)
    manager = managers.LoRAManager(base.model, base.fingerprint)
    manager.apply_card(made.to_card("agent", _reference(base)), "agent@1")
    manager.activate("agent@1")
    ids = torch.tensor([base.prompt_ids("Who built it?")])
    with torch.inference_mode():
        found = base.model(input_ids=ids).logits
    reference = tiny_model.tiny_base().model
    for path in made.composed():
        layer = reference.get_submodule(path)
        layer.weight += _sum(made.layers, path).T.float()
    with torch.inference_mode():
        torch.testing.assert_close(found, reference(input_ids=ids).logits, rtol=1e-4, atol=1e-4)


def test_module_is_adapted_by_those_layers_that_have_it(base):
    few = dict(stacks.stacked(base.model).layers)
    path = next(iter(few[levels.Level.AGENT]))
    few[levels.Level.AGENT] = {path: few[levels.Level.AGENT][path]}
    card = stack.Stack(3, few).to_card("agent", _reference(base))
    assert {one.rank for _, one in card} == {15, 13}
    assert card.modules[path].rank == 15


def test_skill_card_and_stack_add_up_each_with_weight_one(base):
    made = stacks.stacked(base.model)
    skill = tiny_model.card_for(base, kinds=("q_proj", "down_proj"))
    shares = [mixing.Share("agent@1", 1.0), mixing.Share("skill@1", 1.0)]
    both = mixing.merged(shares, [made.to_card("agent", _reference(base)), skill])
    paths = set(made.composed())
    assert set(both.modules) == paths | set(skill.modules)
    for path, module in both:
        expected = torch.zeros(module.in_features, module.out_features, dtype=torch.float64)
        if path in paths:
            expected += _sum(made.layers, path)
        if path in skill.modules:
            expected += _change(skill.modules[path])
        torch.testing.assert_close(_change(module), expected, rtol=1e-5, atol=1e-5)


def test_card_has_the_dtype_that_is_asked_for_and_equal_stacks_are_equal_cards(base):
    one, other = (
        stacks.stacked(base.model, 7).to_card("agent", _reference(base), "bfloat16")
        for _ in range(2)
    )
    assert {module.dtype for _, module in one} == {"bfloat16"}
    assert one.manifest == other.manifest and one.manifest.version == "1.0.7"
    assert one.side_a.equals(other.side_a) and one.side_b.equals(other.side_b)


def test_card_keeps_its_weights_when_the_layers_tensors_are_written_over(base):
    made = stacks.stacked(base.model)
    card = made.to_card("agent", _reference(base))
    kept = (card.side_a.to_pybytes(), card.side_b.to_pybytes())
    for layer in made.layers.values():
        for factors in layer.values():
            factors.a.zero_(), factors.b.zero_()
    assert (card.side_a.to_pybytes(), card.side_b.to_pybytes()) == kept
    assert not made.to_card("agent", _reference(base)).side_a.equals(card.side_a)


def test_stack_without_modules_or_with_two_shapes_of_one_is_refused(base):
    reference = _reference(base)
    with pytest.raises(errors.InvalidInputError, match="adapts no module"):
        stack.Stack(1, {}).to_card("agent", reference)
    layers = {
        levels.Level.AGENT: {"m": weights.Factors(torch.zeros(4, 1), torch.zeros(1, 4))},
        levels.Level.CONTEXT: {"m": weights.Factors(torch.zeros(4, 1), torch.zeros(1, 5))},
    }
    with pytest.raises(errors.InvalidInputError, match="module m"):
        stack.Stack(1, layers).to_card("agent", reference)
    broken = {levels.Level.AGENT: {"m": weights.Factors(torch.zeros(4, 1), torch.ones(1, 4) / 0)}}
    with pytest.raises(errors.CardFormatError, match="infinite"):
        stack.Stack(1, broken).to_card("agent", reference)
