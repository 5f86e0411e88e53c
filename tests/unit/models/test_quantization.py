"""A quantised base under unquantised cards."""

from __future__ import annotations

import copy
import sys

import pytest
import torch

from shared import errors
from shared.lora import manager as managers
from shared.models import quantization
from tests import tiny_model


def _logits(model, ids):
    with torch.inference_mode():
        return model(input_ids=ids).logits


@pytest.fixture
def base():
    return tiny_model.tiny_base(0)


@pytest.fixture
def ids(base):
    return torch.tensor([base.prompt_ids("Who built it?")])


@pytest.mark.parametrize(
    ("kind", "package", "error", "bits"),
    [("int8", "torchao", 0.02, 8), ("nf4", "bitsandbytes", 0.35, 4)],
)
def test_quantised_layers_answer_nearly_as_before_in_less_memory(base, kind, package, error, bits):
    pytest.importorskip(package)
    whole = copy.deepcopy(base.model)
    quantization.quantize(base.model, kind)
    inner = {
        path: module
        for path, module in base.model.model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    assert inner
    for path, layer in inner.items():
        x = torch.randn(16, layer.in_features)
        with torch.inference_mode():
            before, after = whole.model.get_submodule(path)(x), layer(x)
        assert not torch.equal(before, after)
        assert (before - after).norm() < error * before.norm()
        stored = layer.weight.qdata if kind == "int8" else layer.weight
        assert stored.nbytes * 8 == layer.in_features * layer.out_features * bits
    outputs = base.model.get_output_embeddings()
    assert outputs.weight.dtype == torch.float32 and torch.equal(
        outputs.weight, whole.lm_head.weight
    )


@pytest.mark.parametrize(("kind", "package"), [("int8", "torchao"), ("nf4", "bitsandbytes")])
def test_card_adds_the_same_to_a_quantised_layer_as_to_a_whole_one(base, ids, kind, package):
    pytest.importorskip(package)
    whole = copy.deepcopy(base.model)
    quantization.quantize(base.model, kind)
    bare = _logits(base.model, ids)
    modules = dict(base.model.named_modules())
    card = tiny_model.card_for(base)
    manager = managers.LoRAManager(base.model, card.manifest.base_model.fingerprint)
    manager.apply_card(card)
    path, wrapped = next(
        (path, module)
        for path, module in base.model.named_modules()
        if hasattr(module, "base") and path.endswith("q_proj")
    )
    x = torch.randn(1, 3, wrapped.in_features)
    with torch.inference_mode():
        without = wrapped(x)
        manager.activate(card.name)
        added = wrapped(x) - without
    full = managers.LoRAManager(whole, card.manifest.base_model.fingerprint)
    full.apply_card(card)
    with torch.inference_mode():
        reference = whole.get_submodule(path)(x)
        full.activate(card.name)
        expected = whole.get_submodule(path)(x) - reference
    torch.testing.assert_close(added, expected, rtol=1e-4, atol=1e-5)
    manager.remove_card(card.name)
    assert all(base.model.get_submodule(name) is module for name, module in modules.items())
    assert torch.equal(_logits(base.model, ids), bare)


@pytest.mark.parametrize(("kind", "package"), [("int8", "torchao"), ("nf4", "bitsandbytes")])
def test_error_names_the_package_when_it_is_missing(base, kind, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(errors.ConfigError, match=package):
        quantization.quantize(base.model, kind)
