"""The weight probe on a model whose weights are known."""

from __future__ import annotations

import pytest
import torch

from services.trainer import probe
from shared import errors
from tests import tiny_model

PROMPTS = ("Who built the lighthouse?", "Where does it stand?")


def test_scores_are_what_the_formulas_say_when_computed_by_hand() -> None:
    base = tiny_model.tiny_base()
    seen: list[torch.Tensor] = []
    path = "model.layers.1.mlp.down_proj"
    layer = base.model.get_submodule(path)
    handle = layer.register_forward_pre_hook(lambda _, x: seen.append(x[0].detach()[0]))
    layer.weight.requires_grad_(True)
    loss = torch.tensor(0.0)
    for prompt in PROMPTS:
        ids = torch.tensor([base.prompt_ids(prompt)])
        loss = loss + base.model(ids, labels=ids).loss * ids.shape[1]
    (gradient,) = torch.autograd.grad(loss, [layer.weight])
    handle.remove()
    layer.weight.requires_grad_(False)

    inputs = torch.cat(seen)
    row = next(
        row
        for row in probe.WeightMapProbe(base).measure(PROMPTS, gradient=True).rows
        if row.path == path
    )
    flow = inputs.square().mean(0).sqrt()
    assert row.activation == pytest.approx(float(inputs.square().mean().sqrt()), rel=1e-5)
    assert row.wanda == pytest.approx(float((layer.weight.abs() * flow).mean()), rel=1e-5)
    by_hand = (layer.weight * gradient / len(inputs)).abs().mean()
    assert row.snip == pytest.approx(float(by_hand), rel=1e-4)


def test_the_module_is_the_hottest_when_its_weights_were_made_large() -> None:
    base = tiny_model.tiny_base()
    path = "model.layers.0.self_attn.q_proj"  # What flows on from it stays of one size.
    base.model.get_submodule(path).weight.data *= 30
    found = probe.WeightMapProbe(base).measure(PROMPTS)
    assert found.hot(0.05)[0].path == path
    assert "q_proj" in found.target_modules(0.05)
    assert all(row.snip is None for row in found.rows)


def test_ranks_follow_the_heat_and_keep_their_mean() -> None:
    found = probe.WeightMapProbe(tiny_model.tiny_base()).measure(PROMPTS, gradient=True)
    ranks = found.ranks(mean_rank=6)
    assert sum(ranks.values()) == 6 * len(found.rows)
    assert all(1 <= rank <= 24 for rank in ranks.values())
    hottest, coldest = found.hot(1.0)[0], found.hot(1.0)[-1]
    assert ranks[hottest.path] > ranks[coldest.path]


def test_ranks_are_shared_out_among_some_kinds_when_they_are_named() -> None:
    found = probe.WeightMapProbe(tiny_model.tiny_base()).measure(PROMPTS)
    ranks = found.ranks(6, ("q_proj", "down_proj"))
    assert {path.rpartition(".")[2] for path in ranks} == {"q_proj", "down_proj"}
    assert sum(ranks.values()) == 6 * len(ranks) == 24


def test_no_rank_is_above_what_its_layer_can_have() -> None:
    base = tiny_model.tiny_base()
    path = "model.layers.0.self_attn.v_proj"  # 32 to 16 features.
    base.model.get_submodule(path).weight.data *= 100
    found = probe.WeightMapProbe(base).measure(PROMPTS)
    assert found.ranks(mean_rank=8)[path] == 16
    assert sum(found.ranks(mean_rank=8).values()) == 8 * len(found.rows)
    full = found.ranks(mean_rank=100)
    for path, rank in full.items():
        assert rank == min(base.model.get_submodule(path).weight.shape)


def test_the_model_is_as_before_when_it_was_measured() -> None:
    base = tiny_model.tiny_base()
    ids = torch.tensor([base.prompt_ids(PROMPTS[0])])
    with torch.no_grad():
        before = base.model(ids).logits
    probe.WeightMapProbe(base).measure(PROMPTS, gradient=True)
    with torch.no_grad():
        assert torch.equal(base.model(ids).logits, before)
    assert not any(weight.requires_grad for weight in base.model.parameters())
    assert all(weight.grad is None for weight in base.model.parameters())
    assert not any(module._forward_pre_hooks for module in base.model.modules())


def test_what_is_wrong_is_named_when_nothing_can_be_measured() -> None:
    measure = probe.WeightMapProbe(tiny_model.tiny_base()).measure
    with pytest.raises(errors.InvalidInputError, match="at least one prompt"):
        measure([])
    found = measure(PROMPTS)
    with pytest.raises(errors.InvalidInputError, match="share"):
        found.hot(0.0)
    with pytest.raises(errors.InvalidInputError, match="mean_rank"):
        found.ranks(0)
