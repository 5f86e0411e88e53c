"""`LoRALinear` and the rows of a batch against the formula on whole matrices."""

from __future__ import annotations

import pytest
import torch

from shared import errors
from shared.lora import linear, rows


def _layer(bias: bool = True) -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(6, 5, bias=bias)


def _adapter(rank: int = 2, scale: float = 1.5, seed: int = 1) -> linear.Adapter:
    generator = torch.Generator().manual_seed(seed)
    return linear.Adapter(
        torch.randn(6, rank, generator=generator), torch.randn(rank, 5, generator=generator), scale
    )


def _wrapped(
    adapter: linear.Adapter | None = None, bias: bool = True
) -> tuple[linear.LoRALinear, linear.Selection]:
    selection = linear.Selection()
    if adapter is not None:
        selection.rows = rows.OneCard([None, adapter])
    return linear.LoRALinear(_layer(bias), selection, layer=1), selection


@pytest.mark.parametrize("shape", [(6,), (3, 6)])
def test_inputs_of_any_shape_are_taken_when_one_card_is_selected(shape: tuple[int, ...]) -> None:
    adapter, x = _adapter(), torch.randn(shape)
    wrapped, _ = _wrapped(adapter)
    expected = wrapped.base(x) + x @ adapter.lora_a @ adapter.lora_b * adapter.scale
    torch.testing.assert_close(wrapped(x), expected, rtol=1e-5, atol=1e-5)


def test_output_is_bit_identical_when_the_adapter_is_fresh() -> None:
    adapter = linear.fresh(6, 5, 3, 6.0, torch.Generator().manual_seed(0))
    wrapped, _ = _wrapped(adapter)
    x = torch.randn(7, 6)
    assert adapter.scale == 2.0 and adapter.lora_a.abs().max() > 0
    assert torch.equal(wrapped(x), wrapped.base(x))


@pytest.mark.parametrize("rank", [0, 6])
def test_the_rank_is_refused_when_it_does_not_fit_the_layer(rank: int) -> None:
    with pytest.raises(errors.InvalidInputError, match=f"rank {rank}"):
        linear.fresh(6, 5, rank, 1.0, torch.Generator())


def test_only_a_and_b_get_gradients_when_it_is_trained() -> None:
    adapter = linear.fresh(6, 5, 2, 4.0, torch.Generator().manual_seed(0))
    wrapped, _ = _wrapped(adapter)
    wrapped(torch.randn(3, 6)).sum().backward()
    assert adapter.lora_b.grad is not None and adapter.lora_b.grad.abs().max() > 0
    assert adapter.lora_a.grad is not None
    assert wrapped.base.weight.grad is None and wrapped.base.bias.grad is None


def test_weight_is_the_very_same_when_it_is_wrapped() -> None:
    layer = _layer()
    wrapped = linear.LoRALinear(layer, linear.Selection(), 0)
    assert wrapped.base is layer and wrapped.weight is layer.weight


def test_the_layer_is_bare_when_nothing_is_selected_or_the_card_has_no_share() -> None:
    wrapped, selection = _wrapped()
    x = torch.randn(3, 6)
    assert torch.equal(wrapped(x), wrapped.base(x))
    selection.rows = rows.OneCard([_adapter(), None])
    assert torch.equal(wrapped(x), wrapped.base(x))


def test_an_input_is_refused_when_its_rows_can_not_be_told_apart() -> None:
    stack = rows.Stack(torch.zeros(2, 6, 1), torch.zeros(2, 1, 5))
    wrapped, selection = _wrapped()
    selection.rows = rows.EachItsOwn(2, [None, stack])
    assert wrapped(torch.zeros(2, 4, 6)).shape == (2, 4, 5)
    with pytest.raises(errors.InternalError, match="2 rows"):
        wrapped(torch.zeros(8, 6))
