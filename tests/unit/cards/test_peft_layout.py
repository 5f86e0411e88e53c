"""Cards as PEFT adapters and back: PEFT itself is the independent reader."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import peft
import pytest
import torch

from shared import errors
from shared.cards import card as cards
from shared.cards import peft_layout
from shared.lora import manager, tensors
from tests import tiny_model

# PEFT's own words to transformers, not ours.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

IDS = torch.tensor([[5, 6, 7, 8, 9, 70, 71]])
KINDS = ("q_proj", "v_proj", "down_proj")


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(IDS).logits
    return found


@torch.no_grad()
def logits_with(card: cards.LoRACard) -> torch.Tensor:
    base = tiny_model.tiny_base()
    lora = manager.LoRAManager(base.model)
    lora.apply_card(card, "card")
    lora.activate("card")
    return logits(base.model)


def peft_model(folder: pathlib.Path) -> Any:
    return peft.PeftModel.from_pretrained(tiny_model.tiny_base().model, str(folder)).eval()


def saved_by_peft(folder: pathlib.Path, **options: Any) -> Any:
    """An adapter with random weights, made and saved by PEFT; returns PEFT's model."""
    config = peft.LoraConfig(
        **{"r": 3, "lora_alpha": 5, "target_modules": list(KINDS), "task_type": "CAUSAL_LM"}
        | options
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = peft.get_peft_model(tiny_model.tiny_base().model, config).eval()
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(str(folder))
    return model


def imported(folder: pathlib.Path) -> cards.LoRACard:
    manifest = tiny_model.card_for(tiny_model.tiny_base()).manifest
    return peft_layout.to_card(peft_layout.read(folder), manifest)


def rewrite_config(folder: pathlib.Path, **fields: Any) -> None:
    path = folder / peft_layout.CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def assert_alike(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Within 1e-5 of the largest logit: the order of sums is the processor's."""
    largest = float(expected.abs().max())
    torch.testing.assert_close(found, expected, atol=1e-5 * largest, rtol=0)


def test_peft_gives_the_same_logits_when_it_loads_an_exported_card(tmp_path: pathlib.Path) -> None:
    card = tiny_model.card_for(tiny_model.tiny_base())
    peft_layout.export(card, tmp_path)
    assert_alike(logits(peft_model(tmp_path)), logits_with(card))


def test_a_card_gives_the_same_logits_when_peft_made_it(tmp_path: pathlib.Path) -> None:
    theirs = logits(saved_by_peft(tmp_path))
    bare = logits(tiny_model.tiny_base().model)
    assert not torch.allclose(theirs, bare, atol=1e-2)
    assert_alike(logits_with(imported(tmp_path)), theirs)


@pytest.mark.parametrize(
    "options",
    [
        {"use_rslora": True},
        {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {"layers.1.self_attn.q_proj": 9}},
    ],
    ids=["rank stabilised", "patterns"],
)
def test_ranks_and_scales_of_modules_are_kept_when_peft_sets_them(
    tmp_path: pathlib.Path, options: dict[str, Any]
) -> None:
    theirs = logits(saved_by_peft(tmp_path, **options))
    assert_alike(logits_with(imported(tmp_path)), theirs)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_card_is_the_same_bit_by_bit_when_it_went_to_peft_and_back(
    tmp_path: pathlib.Path, dtype: str
) -> None:
    card = tiny_model.card_for(tiny_model.tiny_base())
    modules = {
        path: tensors.weights_of(tensors.adapter_of(weights, torch.float32), weights.alpha, dtype)
        for path, weights in card
    }
    card = cards.LoRACard(card.manifest, modules)
    peft_layout.export(card, tmp_path)
    back = peft_layout.read(tmp_path)
    assert back.modules == card.modules
    assert (back.base_model_id, back.revision) == ("tiny", "main")


def test_lower_ranks_are_filled_up_when_a_card_has_several(tmp_path: pathlib.Path) -> None:
    card = tiny_model.card_for(tiny_model.tiny_base())
    modules = dict(card.modules)
    narrow = next(path for path in modules if path.endswith("v_proj"))
    adapter = tensors.adapter_of(modules[narrow], torch.float32)
    adapter = dataclasses.replace(adapter, lora_a=adapter.lora_a[:, :1], lora_b=adapter.lora_b[:1])
    modules[narrow] = tensors.weights_of(adapter, alpha=1.0, dtype="float32")
    card = cards.LoRACard(card.manifest, modules)
    peft_layout.export(card, tmp_path)
    config = json.loads((tmp_path / peft_layout.CONFIG_FILE).read_text())
    assert config["r"] == 2 and not any(field.endswith("_pattern") for field in config)
    assert_alike(logits(peft_model(tmp_path)), logits_with(card))


def test_export_is_refused_when_modules_are_scaled_differently(tmp_path: pathlib.Path) -> None:
    card = tiny_model.card_for(tiny_model.tiny_base())
    modules = dict(card.modules)
    first = next(iter(modules))
    modules[first] = modules[first]._replace(alpha=5.0)
    with pytest.raises(errors.InvalidInputError, match="alpha_pattern"):
        peft_layout.export(cards.LoRACard(card.manifest, modules), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "lora_only"}, "bias"),
    ],
)
def test_the_feature_is_named_when_peft_saved_one_that_a_card_can_not_hold(
    tmp_path: pathlib.Path, options: dict[str, Any], named: str
) -> None:
    saved_by_peft(tmp_path, **options)
    with pytest.raises(errors.CardFormatError, match=named):
        peft_layout.read(tmp_path)


@pytest.mark.parametrize(
    "fields",
    [
        {"peft_type": "LOHA"},
        {"fan_in_fan_out": True},
        {"layer_replication": [[0, 1]]},
        {"a_feature_of_tomorrow": {"on": True}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_the_field_is_named_when_it_is_switched_on(
    tmp_path: pathlib.Path, fields: dict[str, Any]
) -> None:
    saved_by_peft(tmp_path)
    rewrite_config(tmp_path, **fields)
    with pytest.raises(errors.CardFormatError, match=next(iter(fields))):
        peft_layout.read(tmp_path)


@pytest.mark.filterwarnings("ignore:lora with eva initialization:UserWarning")
@pytest.mark.parametrize("start", [True, False, "gaussian", "orthogonal", "eva", "mica"])
def test_logits_are_those_of_peft_when_the_start_of_training_left_the_base_alone(
    tmp_path: pathlib.Path, start: bool | str
) -> None:
    eva = {"eva_config": peft.EvaConfig()} if start == "eva" else {}
    saved_by_peft(tmp_path, init_lora_weights=start, r=4, **eva)
    torch.testing.assert_close(
        logits_with(imported(tmp_path)), logits(peft_model(tmp_path)), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora"])
def test_an_adapter_is_refused_when_peft_changes_the_base_for_it(
    tmp_path: pathlib.Path, start: str
) -> None:
    saved_by_peft(tmp_path, init_lora_weights=start)
    loaded = peft_model(tmp_path)
    with loaded.disable_adapter():
        assert not torch.allclose(logits(loaded), logits(tiny_model.tiny_base().model), atol=0.1)
    with pytest.raises(errors.CardFormatError, match=f"init_lora_weights is '{start}'"):
        peft_layout.read(tmp_path)


@pytest.mark.parametrize(
    "start", ["corda", "loftq", "lora_ga", "PiSSA", "OLoRA", "a_start_of_tomorrow", 7, ["pissa"]]
)
def test_an_adapter_is_refused_when_its_start_is_not_known_to_leave_the_base_alone(
    tmp_path: pathlib.Path, start: Any
) -> None:
    saved_by_peft(tmp_path)
    rewrite_config(tmp_path, init_lora_weights=start)
    with pytest.raises(errors.CardFormatError, match="init_lora_weights"):
        peft_layout.read(tmp_path)


@pytest.mark.filterwarnings("ignore:.*will be ignored when:UserWarning")
@pytest.mark.parametrize(
    "fields",
    [
        {"corda_config": {"corda_method": "kpm"}},
        {"loftq_config": {"loftq_bits": 4, "loftq_iter": 1}},
        {"loftq_config": {}, "corda_config": None, "lora_ga_config": None, "eva_config": None},
        {"lora_ga_config": {"direction": "ArBr"}},
        {"init_lora_weights": None},
    ],
    ids=str,
)
def test_logits_are_those_of_peft_when_the_settings_of_another_start_are_left_over(
    tmp_path: pathlib.Path, fields: dict[str, Any]
) -> None:
    saved_by_peft(tmp_path)
    rewrite_config(tmp_path, **fields)
    torch.testing.assert_close(
        logits_with(imported(tmp_path)), logits(peft_model(tmp_path)), atol=1e-5, rtol=1e-5
    )


@pytest.mark.filterwarnings("ignore:PiSSA changes the base weights:UserWarning")
def test_a_changed_base_is_no_hindrance_when_peft_made_a_plain_adapter_of_it(
    tmp_path: pathlib.Path,
) -> None:
    model = saved_by_peft(tmp_path / "made", init_lora_weights="pissa")
    start = peft.get_peft_model(tiny_model.tiny_base().model, model.peft_config["default"])
    start.save_pretrained(str(tmp_path / "start"))
    trained = logits(model)
    model.save_pretrained(
        str(tmp_path / "plain"), path_initial_model_for_weight_conversion=str(tmp_path / "start")
    )
    torch.testing.assert_close(
        logits_with(imported(tmp_path / "plain")), trained, atol=1e-4, rtol=1e-4
    )


def test_files_are_named_when_they_are_missing_or_broken(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.NotFoundError, match=peft_layout.CONFIG_FILE):
        peft_layout.read(tmp_path)
    saved_by_peft(tmp_path)
    weights = tmp_path / peft_layout.WEIGHTS_FILE
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(errors.CardFormatError, match=peft_layout.WEIGHTS_FILE):
        peft_layout.read(tmp_path)
    weights.unlink()
    with pytest.raises(errors.NotFoundError, match=peft_layout.WEIGHTS_FILE):
        peft_layout.read(tmp_path)
