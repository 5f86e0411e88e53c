"""`LoRALinear` against the formula on whole matrices."""

from __future__ import annotations

import pytest
import torch

from shared import errors
from shared.lora import linear


def _layer(bias: bool = True) -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(6, 5, bias=bias)


def _adapter(rank: int = 2, scale: float = 1.5, seed: int = 1) -> linear.Adapter:
    generator = torch.Generator().manual_seed(seed)
    return linear.Adapter(
        torch.randn(6, rank, generator=generator), torch.randn(rank, 5, generator=generator), scale
    )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(6,), (3, 6), (2, 4, 6)])
def test_output_is_of_the_merged_weight_when_a_card_is_active(bias, shape):
    layer, adapter, x = _layer(bias), _adapter(), torch.randn(shape)
    wrapped = linear.LoRALinear(layer)
    wrapped.add("card", adapter)
    wrapped.activate("card")
    merged = layer.weight.T + adapter.lora_a @ adapter.lora_b * adapter.scale
    expected = x @ merged + (layer.bias if bias else 0)
    torch.testing.assert_close(wrapped(x), expected, rtol=1e-5, atol=1e-5)


def test_output_is_bit_identical_when_the_adapter_is_fresh():
    wrapped, x = linear.LoRALinear(_layer()), torch.randn(7, 6)
    adapter = wrapped.add_trainable("card", 3, 6.0, torch.Generator().manual_seed(0))
    wrapped.activate("card")
    assert adapter.scale == 2.0 and adapter.lora_a.abs().max() > 0
    assert torch.equal(wrapped(x), wrapped.base(x))


def test_only_a_and_b_get_gradients_when_it_is_trained():
    wrapped = linear.LoRALinear(_layer())
    adapter = wrapped.add_trainable("card", 2, 4.0, torch.Generator().manual_seed(0))
    wrapped.activate("card")
    wrapped(torch.randn(3, 6)).sum().backward()
    assert adapter.lora_b.grad is not None and adapter.lora_b.grad.abs().max() > 0
    assert adapter.lora_a.grad is not None
    assert wrapped.base.weight.grad is None and wrapped.base.bias.grad is None


def test_weight_is_the_very_same_when_it_is_wrapped():
    layer = _layer()
    wrapped = linear.LoRALinear(layer)
    assert wrapped.base is layer and wrapped.weight is layer.weight


def test_cards_do_not_mix_when_several_are_present():
    wrapped, x = linear.LoRALinear(_layer()), torch.randn(3, 6)
    one, two = _adapter(seed=1), _adapter(rank=4, seed=2)
    wrapped.add("one", one)
    wrapped.add("two", two)
    bare = wrapped(x)
    for key, adapter in (("one", one), ("two", two)):
        wrapped.activate(key)
        expected = bare + x @ adapter.lora_a @ adapter.lora_b * adapter.scale
        torch.testing.assert_close(wrapped(x), expected, rtol=1e-5, atol=1e-5)
    for key in ("elsewhere", None):
        wrapped.activate(key)
        assert torch.equal(wrapped(x), bare)


def test_layer_is_bare_again_when_the_active_card_is_removed():
    wrapped, x = linear.LoRALinear(_layer()), torch.randn(3, 6)
    wrapped.add("card", _adapter())
    wrapped.activate("card")
    wrapped.remove("card")
    wrapped.remove("card")
    assert wrapped.keys == [] and torch.equal(wrapped(x), wrapped.base(x))


def test_adapter_is_refused_when_its_shape_does_not_fit():
    wrapped = linear.LoRALinear(_layer())
    with pytest.raises(errors.InvalidInputError, match="card"):
        wrapped.add("card", linear.Adapter(torch.zeros(5, 2), torch.zeros(2, 5), 1.0))
    assert wrapped.keys == []
