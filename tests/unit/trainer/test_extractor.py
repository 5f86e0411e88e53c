"""Cards out of fine-tuned models: what is kept, what is lost, and what is said about it."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import torch

from services.trainer import extractor
from shared import errors
from shared.cards import card as cards
from shared.cards import format as formats
from shared.lora import manager, tensors
from shared.models import base as bases
from tests import tiny_model

KINDS = ("q_proj", "down_proj")


def tuned(noise: float, rank: int = 0, seed: int = 5) -> bases.BaseModel:
    """The tiny base with changed weights: a change of low rank, and noise on top of it."""
    base = tiny_model.tiny_base()
    generator = torch.Generator().manual_seed(seed)
    for name, weight in base.model.named_parameters():
        if name.rpartition(".")[0].endswith(KINDS):
            rows, columns = weight.shape
            weight.data += noise * torch.randn(rows, columns, generator=generator)
            if rank:
                left = torch.randn(rows, rank, generator=generator)
                weight.data += 0.2 * left @ torch.randn(rank, columns, generator=generator)
    return base


def change(norm: float, low_rank: bool = False, seed: int = 2) -> torch.Tensor:
    """A change of a weight, (out_features, in_features), of rank 4 or of full rank."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(*shape, generator=generator) for shape in ((96, 4), (4, 64)))
    matrix = left @ right if low_rank else torch.randn(96, 64, generator=generator)
    return (matrix.double() * norm / matrix.double().norm()).float()


def saved(extraction: extractor.Extraction, folder: pathlib.Path) -> cards.LoRACard:
    """The card as it is read back from its file."""
    path = folder / "card.lora.arrow"
    manifest = tiny_model.card_for(tiny_model.tiny_base()).manifest
    formats.LoRAFormat.save(extraction.to_card(manifest), path)
    return formats.LoRAFormat.load(path)


def error(weights: cards.ModuleWeights, matrix: torch.Tensor) -> float:
    """Relative Frobenius error of what a card adds to a weight."""
    lora = tensors.adapter_of(weights, torch.float64)
    rest = matrix.T.double() - lora.lora_a @ lora.lora_b * lora.scale
    return float(rest.norm() / matrix.double().norm())


def optimum(matrix: torch.Tensor, rank: int) -> float:
    """The least relative Frobenius error of any matrix of that rank (Eckart and Young 1936)."""
    values = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    return float(np.sqrt((values[rank:] ** 2).sum() / (values**2).sum()))


def test_the_tuned_model_comes_back_when_its_change_has_the_rank_of_the_card() -> None:
    base, other = tiny_model.tiny_base(), tuned(noise=0.0, rank=3)
    recipe = extractor.Recipe(kinds=KINDS, rank=3, dtype="float32")
    extraction = extractor.LoRAExtractor(recipe).delta(base.model, other.model)
    assert extraction.error < 1e-3 and not extraction.left_out
    texts = ["Who built the lighthouse?", "Why?"]
    before = extractor.divergence(other, base, texts)
    lora = manager.LoRAManager(base.model)
    lora.apply_card(extraction.to_card(tiny_model.card_for(base).manifest), "card")
    lora.activate("card")
    assert extractor.divergence(other, base, texts) < 1e-6 < 1e-2 < before


@pytest.mark.parametrize("randomised", [False, True])
def test_the_error_is_near_the_optimum_when_the_rank_is_too_low(randomised: bool) -> None:
    base, other = tiny_model.tiny_base(), tuned(noise=0.1, rank=4)
    recipe = extractor.Recipe(kinds=KINDS, rank=4, randomised=randomised, dtype="float32")
    extraction = extractor.LoRAExtractor(recipe).delta(base.model, other.model)
    for row in extraction.report:
        change = (
            other.model.get_submodule(row.path).weight - base.model.get_submodule(row.path).weight
        )
        values = np.linalg.svd(change.detach().double().numpy(), compute_uv=False)
        best = (values[:4] ** 2).sum() / (values**2).sum()
        if randomised:
            assert row.energy >= 0.99 * best
        else:
            assert row.error - np.sqrt(1 - best) <= 1e-5
        assert row.norm == pytest.approx(np.sqrt((values**2).sum()), rel=1e-5)


def test_each_module_gets_the_rank_that_it_needs_when_an_energy_is_given() -> None:
    base, other = tiny_model.tiny_base(), tuned(noise=0.02, rank=2)
    recipe = extractor.Recipe(kinds=KINDS, rank=20, energy=0.9)
    extraction = extractor.LoRAExtractor(recipe).delta(base.model, other.model)
    assert all(row.rank <= 3 and row.energy >= 0.9 for row in extraction.report)
    assert extraction.energy >= 0.9


def test_the_card_adds_the_matrix_when_it_is_given_directly() -> None:
    path = "model.layers.0.self_attn.q_proj"
    matrix = torch.randn(32, 32, generator=torch.Generator().manual_seed(2))
    recipe = extractor.Recipe(kinds=("q_proj",), rank=32, dtype="float32")
    extraction = extractor.LoRAExtractor(recipe).direct({path: matrix})
    base = tiny_model.tiny_base()
    x = torch.randn(4, 32, generator=torch.Generator().manual_seed(3))
    expected = base.model.get_submodule(path)(x) + x @ matrix.T
    lora = manager.LoRAManager(base.model)
    lora.apply_card(extraction.to_card(tiny_model.card_for(base).manifest), "card")
    lora.activate("card")
    torch.testing.assert_close(base.model.get_submodule(path)(x), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("low_rank", [False, True], ids=["full rank", "low rank"])
@pytest.mark.parametrize("norm", [1e-30, 1e-8, 1e-5, 1e-2, 1.0, 1e3])
@pytest.mark.parametrize(
    ("dtype", "rounding"), [("float32", 1e-5), ("float16", 1e-3), ("bfloat16", 8e-3)]
)
def test_the_saved_card_is_the_optimum_but_for_rounding_at_any_magnitude(
    tmp_path: pathlib.Path, dtype: str, rounding: float, norm: float, low_rank: bool
) -> None:
    matrix = change(norm, low_rank)
    recipe = extractor.Recipe(rank=4, dtype=dtype)
    extraction = extractor.LoRAExtractor(recipe).direct({"a.q_proj": matrix})
    weights = saved(extraction, tmp_path).modules["a.q_proj"]
    assert weights.dtype == dtype
    assert error(weights, matrix) <= optimum(matrix, 4) + rounding


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_report_is_of_the_rounded_card(tmp_path: pathlib.Path, dtype: str) -> None:
    matrices = {"a.q_proj": change(1.0, low_rank=True), "b.q_proj": change(1e-3, seed=3)}
    recipe = extractor.Recipe(rank=4, dtype=dtype)
    extraction = extractor.LoRAExtractor(recipe).direct(matrices)
    card = saved(extraction, tmp_path)
    squares, left = 0.0, 0.0
    for row in extraction.report:
        own = error(card.modules[row.path], matrices[row.path])
        assert row.error == pytest.approx(own, rel=1e-6)
        assert row.energy == pytest.approx(1 - own**2, rel=1e-9)
        squares, left = squares + row.norm**2, left + (own * row.norm) ** 2
    assert extraction.error == pytest.approx(np.sqrt(left / squares), rel=1e-6)
    assert extraction.energy == pytest.approx(1 - left / squares, rel=1e-9)


def test_no_module_is_lost_in_rounding_when_another_changed_far_more() -> None:
    norms = {"a.q_proj": 1e-8, "b.q_proj": 1e-3, "c.q_proj": 1.0, "d.q_proj": 1e3}
    matrices = {path: change(norm, low_rank=True) for path, norm in norms.items()}
    extraction = extractor.LoRAExtractor(extractor.Recipe(rank=4)).direct(matrices)
    for path, weights in extraction.modules.items():
        assert error(weights, matrices[path]) < 1e-3


def test_the_card_has_one_scale_when_its_modules_changed_about_equally() -> None:
    matrices = {
        "a.q_proj": change(1e-3),
        "b.q_proj": change(1e-1, low_rank=True),
        "c.q_proj": torch.zeros(96, 64),
    }
    recipe = extractor.Recipe(rank=9, energy=0.9)
    modules = extractor.LoRAExtractor(recipe).direct(matrices).modules
    assert len({weights.rank for weights in modules.values()}) > 1
    assert len({weights.scale for weights in modules.values()}) == 1, "or PEFT can't take it"


def test_what_the_card_does_not_hold_is_told_when_it_differs_too() -> None:
    other = tuned(noise=0.0, rank=1)
    other.model.model.norm.weight.data += 1.0
    recipe = extractor.Recipe(kinds=("q_proj",))
    extraction = extractor.LoRAExtractor(recipe).delta(tiny_model.tiny_base().model, other.model)
    assert "model.norm.weight" in extraction.left_out
    assert "model.layers.1.mlp.down_proj.weight" in extraction.left_out
    assert not any("q_proj" in name for name in extraction.left_out)


def test_the_reason_is_given_when_nothing_can_be_extracted() -> None:
    base = tiny_model.tiny_base().model
    extract = extractor.LoRAExtractor(extractor.Recipe(kinds=KINDS))
    with pytest.raises(errors.InvalidInputError, match="do not differ"):
        extract.delta(base, tiny_model.tiny_base().model)
    with pytest.raises(errors.NotFoundError, match="nothing_proj"):
        extractor.LoRAExtractor(extractor.Recipe(kinds=("nothing_proj",))).delta(base, base)
    smaller = torch.nn.Sequential(torch.nn.Linear(2, 2))
    with pytest.raises(errors.InvalidInputError, match="only the"):
        extract.delta(base, smaller)
    with pytest.raises(errors.InvalidInputError, match="no matrices"):
        extract.direct({})
    with pytest.raises(errors.InvalidInputError, match="dtype is 'int8'"):
        extractor.LoRAExtractor(extractor.Recipe(dtype="int8"))
    with pytest.raises(errors.InvalidInputError, match="at least one text"):
        extractor.divergence(tiny_model.tiny_base(), tiny_model.tiny_base(), [])
