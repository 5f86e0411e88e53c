"""Merging cards: what the result adds to the weights, computed apart with plain matrices."""

from __future__ import annotations

import pytest
import torch

from shared import errors
from shared.cards import card as cards
from shared.lora import algebra, linear, tensors
from tests import tiny_model

BASE = tiny_model.tiny_base()


def delta(weights: cards.ModuleWeights) -> torch.Tensor:
    adapter = tensors.adapter_of(weights, torch.float64)
    return adapter.lora_a @ adapter.lora_b * adapter.scale


def card_of(matrices: dict[str, torch.Tensor], name: str = "made") -> cards.LoRACard:
    """A card that adds exactly these matrices, at full rank."""
    manifest = tiny_model.card_for(BASE, name).manifest
    modules = {}
    for path, matrix in matrices.items():
        rank = min(matrix.shape)
        eye = torch.eye(matrix.shape[0])
        adapter = (
            linear.Adapter(eye, matrix.float(), 1.0)
            if rank == matrix.shape[0]
            else linear.Adapter(matrix.float(), torch.eye(matrix.shape[1]), 1.0)
        )
        modules[path] = tensors.weights_of(adapter, float(rank), "float32")
    kinds = tuple({path.rpartition(".")[2] for path in matrices})
    return cards.LoRACard(manifest.model_copy(update={"target_modules": kinds}), modules)


def test_the_best_of_its_rank_is_found_when_the_sum_is_cut() -> None:
    parts = [tiny_model.card_for(BASE, seed=seed) for seed in (1, 2, 3)]
    merged = algebra.merge(parts, algebra.Recipe(algebra.Method.SVD, (1.0, 1.0, -0.5), rank=3))
    assert merged.rank == 3
    for path, weights in merged.modules.items():
        whole = sum(
            s * delta(card.modules[path]) for s, card in zip((1.0, 1.0, -0.5), parts, strict=True)
        )
        assert isinstance(whole, torch.Tensor)
        values = torch.linalg.svdvals(whole)
        rest = (whole - delta(weights)).norm()
        torch.testing.assert_close(rest, values[3:].square().sum().sqrt(), atol=1e-4, rtol=1e-4)
        kept = float(values[:3].square().sum() / values.square().sum())
        assert merged.energy[path] == pytest.approx(kept, abs=1e-6)


def test_ties_trims_elects_a_sign_and_averages_what_agrees() -> None:
    path = "model.layers.0.self_attn.q_proj"
    first = torch.tensor([[4.0, -3.0], [2.0, 0.1]])
    second = torch.tensor([[2.0, 5.0], [-1.0, 0.2]])
    parts = [card_of({path: first}, "one"), card_of({path: second}, "two")]
    merged = algebra.merge(parts, algebra.Recipe(algebra.Method.TIES, rank=2, density=0.5))
    # Half of each stays: 4 and -3 of the first, 2 and 5 of the second. In the corner both say
    # plus: their mean. Beside it 5 outweighs -3: 5 alone. The rest was trimmed away.
    expected = torch.tensor([[3.0, 5.0], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(delta(merged.modules[path]), expected, atol=1e-5, rtol=1e-5)


def test_dare_drops_by_its_seed_and_is_right_on_average() -> None:
    path = "model.layers.0.self_attn.q_proj"
    whole = torch.full((8, 8), 2.0)
    part = card_of({path: whole})

    def merged(seed: int) -> torch.Tensor:
        recipe = algebra.Recipe(algebra.Method.DARE, rank=8, density=0.25, seed=seed)
        return delta(algebra.merge([part], recipe).modules[path])

    torch.testing.assert_close(merged(1), merged(1), atol=0, rtol=0)
    assert not torch.allclose(merged(1), merged(2))
    entries = merged(1).flatten()
    kept = entries.abs() > 1e-3
    torch.testing.assert_close(
        entries[kept], torch.full_like(entries[kept], 8.0), atol=1e-4, rtol=1e-4
    )
    mean = torch.stack([merged(seed) for seed in range(200)]).mean()
    assert float(mean) == pytest.approx(2.0, abs=0.2)


def test_a_module_is_merged_of_the_cards_that_have_it() -> None:
    wide = tiny_model.card_for(BASE, "wide", kinds=("q_proj", "v_proj"))
    narrow = tiny_model.card_for(BASE, "narrow", seed=2, kinds=("q_proj",))
    merged = algebra.merge([wide, narrow], algebra.Recipe(weights=(1.0, 1.0)))
    path = "model.layers.1.self_attn.v_proj"
    torch.testing.assert_close(
        delta(merged.modules[path]), delta(wide.modules[path]), atol=1e-6, rtol=1e-6
    )
    card = merged.to_card(narrow.manifest)
    assert set(card.target_modules) == {"q_proj", "v_proj"} and card.rank == merged.rank == 4


def test_ranks_stay_within_the_layer_when_many_cards_are_merged() -> None:
    parts = [tiny_model.card_for(BASE, seed=seed) for seed in range(20)]
    merged = algebra.merge(parts, algebra.Recipe())
    path = "model.layers.0.self_attn.v_proj"
    assert merged.modules[path].rank == 16  # 40 columns side by side, a layer of 32 to 16.
    expected = sum(delta(card.modules[path]) for card in parts) / 20
    torch.testing.assert_close(delta(merged.modules[path]), expected, atol=1e-5, rtol=1e-5)


def test_what_is_wrong_is_named_when_cards_can_not_be_merged() -> None:
    card = tiny_model.card_for(BASE)
    foreign = tiny_model.card_for(BASE, "foreign", fingerprint="0" * 64)
    with pytest.raises(errors.BaseModelMismatchError, match="foreign"):
        algebra.merge([card, foreign], algebra.Recipe())
    with pytest.raises(errors.InvalidInputError, match="no cards"):
        algebra.merge([], algebra.Recipe())
    with pytest.raises(errors.InvalidInputError, match="2 weights for 1 cards"):
        algebra.merge([card], algebra.Recipe(weights=(1.0, 2.0)))
    with pytest.raises(errors.InvalidInputError, match="density"):
        algebra.merge([card], algebra.Recipe(algebra.Method.TIES, density=0.0))
    with pytest.raises(errors.InvalidInputError, match="rank"):
        algebra.merge([card], algebra.Recipe(algebra.Method.SVD, rank=0))
