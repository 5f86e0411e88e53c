"""Cards as the folders that vLLM loads; PEFT is the independent reader."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import peft
import pyarrow as pa
import pytest
import stores
import torch
from skillmesh_vllm import errors, peft_folder

from shared.cards import card as cards
from shared.cards import format as formats
from shared.cards import peft_layout
from shared.lora import manager, tensors
from tests import tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
IDS = torch.tensor([[5, 6, 7, 8, 9, 70, 71]])


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(IDS).logits
    return found


def logits_with(card: cards.LoRACard) -> torch.Tensor:
    base = tiny_model.tiny_base()
    lora = manager.LoRAManager(base.model)
    lora.apply_card(card, "card")
    lora.activate("card")
    return logits(base.model)


def logits_of_peft(folder: pathlib.Path) -> torch.Tensor:
    model = peft.PeftModel.from_pretrained(tiny_model.tiny_base().model, str(folder))
    return logits(model.eval())


def written(card: cards.LoRACard, folder: pathlib.Path) -> pathlib.Path:
    data = pa.py_buffer(formats.LoRAFormat.to_bytes(card))
    peft_folder.write(data, stores.BASE.fingerprint, folder)
    return folder


def with_ranks(card: cards.LoRACard, alpha: float) -> cards.LoRACard:
    """One module cut to rank 1, with this alpha; the others have 2 and 2."""
    modules = dict(card.modules)
    narrow = next(path for path in modules if path.endswith("v_proj"))
    adapter = tensors.adapter_of(modules[narrow], torch.float32)
    adapter = dataclasses.replace(adapter, lora_a=adapter.lora_a[:, :1], lora_b=adapter.lora_b[:1])
    modules[narrow] = tensors.weights_of(adapter, alpha=alpha, dtype="float32")
    return cards.LoRACard(card.manifest, modules)


def test_peft_gives_the_logits_of_the_engine_when_it_loads_the_folder(
    tmp_path: pathlib.Path,
) -> None:
    card = stores.card()
    found = logits_of_peft(written(card, tmp_path))
    assert not torch.allclose(found, logits(tiny_model.tiny_base().model), atol=1e-2)
    torch.testing.assert_close(found, logits_with(card), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_weights_are_the_same_bit_by_bit_when_the_folder_is_read_back(
    tmp_path: pathlib.Path, dtype: str
) -> None:
    card = stores.card(dtype)
    back = peft_layout.read(written(card, tmp_path))
    assert back.modules == card.modules
    assert (back.base_model_id, back.revision) == ("tiny", "main")


def test_peft_reads_bfloat16_when_a_card_has_it(tmp_path: pathlib.Path) -> None:
    card = stores.card("bfloat16")
    torch.testing.assert_close(
        logits_of_peft(written(card, tmp_path)), logits_with(card), atol=1e-3, rtol=1e-3
    )


def test_lower_ranks_are_filled_up_when_a_card_has_several(tmp_path: pathlib.Path) -> None:
    card = with_ranks(stores.card(), alpha=1.0)
    folder = written(card, tmp_path)
    config = json.loads((folder / peft_folder.CONFIG_FILE).read_text())
    assert config["r"] == 2 and not any(field.endswith("_pattern") for field in config)
    torch.testing.assert_close(logits_of_peft(folder), logits_with(card), atol=1e-3, rtol=1e-3)


def test_a_card_is_refused_when_its_modules_have_different_scales(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.MismatchError, match="different scales"):
        written(with_ranks(stores.card(), alpha=3.0), tmp_path)


def test_a_card_is_refused_when_it_belongs_to_another_base_model(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.MismatchError, match="e" * 64):
        written(stores.card(fingerprint="e" * 64), tmp_path)
    assert not list(tmp_path.iterdir())


def test_bytes_are_refused_when_they_are_no_card(tmp_path: pathlib.Path) -> None:
    whole = formats.LoRAFormat.to_bytes(stores.card())
    table = pa.table({"module": ["a"]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    for data in (b"", b"no card", whole[: len(whole) // 2], sink.getvalue()):
        with pytest.raises(errors.DamagedError):
            peft_folder.write(pa.py_buffer(data), stores.BASE.fingerprint, tmp_path)
    assert not list(tmp_path.iterdir())
