"""What is chosen for machines that are described, most of which are not at hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from services.trainer.specialist import hardware, plan
from shared import codebase_settings, errors
from tests.unit.trainer.specialist import code

SMALL = plan.Shape(4_700_000, 4, 256, 8_192, 1_024, embedded=True)
HALF_B = plan.Shape(494_000_000, 24, 896, 151_936, 32_768)
SEVEN_B = plan.Shape(7_600_000_000, 28, 3_584, 152_064, 32_768)
WORK = plan.Work(examples=1_000, mean_tokens=200.0, replay_tokens=100)
CONSUMER = code.described(
    gpu="RTX 4060", gpu_free_bytes=8 * 10**9, capability=(8, 9), bf16=True, bitsandbytes=True
)
LARGE = code.described(gpu="H100", gpu_free_bytes=80 * 10**9, capability=(9, 0), bf16=True)


def planned(
    machine: hardware.Hardware, shape: plan.Shape, threads: int = 1, **how: Any
) -> plan.Plan:
    return plan.plan(machine, shape, WORK, codebase_settings.Specialist(**how), threads)


def test_a_real_training_is_bounded_when_there_is_no_gpu() -> None:
    short, long = (planned(code.MACHINE, SMALL, cpu_minutes=minutes) for minutes in (1.0, 2.0))
    assert (short.backend, short.method, short.dtype, short.device) == (
        "own", "lora", "float32", "cpu",
    )  # fmt: skip
    assert long.steps == pytest.approx(2 * short.steps, abs=2)
    assert planned(code.MACHINE, SMALL, threads=2, cpu_minutes=1.0).steps == long.steps
    assert short.target_modules == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert "there is no GPU" in short.why and f"cut to {short.steps}" in short.why


def test_all_passes_are_made_when_a_cpu_has_time_for_them() -> None:
    found = planned(code.MACHINE, SMALL, cpu_minutes=1_000.0, epochs=2.0)
    assert found.steps == 2 * WORK.examples / found.batch_rows


def test_a_small_code_base_is_passed_over_more_often() -> None:
    few = plan.Work(examples=8, mean_tokens=200.0)
    found = plan.plan(code.MACHINE, SMALL, few, codebase_settings.Specialist(min_steps=90), 1)
    assert found.steps == 90 and "min_steps" in found.why


def test_a_training_is_refused_when_a_cpu_would_hardly_begin_it() -> None:
    with pytest.raises(errors.ConfigError, match=r"cpu_minutes.*raise it to"):
        planned(code.MACHINE, SEVEN_B)


def test_the_base_stays_whole_when_the_gpu_is_large() -> None:
    found = planned(LARGE, SEVEN_B, min_steps=1)
    assert (found.method, found.dtype, found.device) == ("lora", "bfloat16", "cuda")
    assert found.steps == -(-3 * WORK.examples // found.batch_rows)
    assert "GB" in found.why


def test_the_base_is_kept_in_4_bits_when_it_does_not_fit_otherwise() -> None:
    found = planned(CONSUMER, SEVEN_B)
    assert (found.method, found.gradient_checkpointing) == ("qlora", True)
    assert "nf4" in found.why and found.batch_rows < planned(LARGE, SEVEN_B).batch_rows
    assert f"{found.batch_rows} rows a step in place of" in found.why


def test_it_is_said_what_to_install_when_only_4_bits_would_fit() -> None:
    poor = code.described(gpu="RTX", gpu_free_bytes=8 * 10**9, capability=(8, 9), bf16=True)
    with pytest.raises(errors.ConfigError, match="install bitsandbytes"):
        planned(poor, SEVEN_B)
    assert planned(poor, HALF_B).method == "lora"


def test_unsloth_is_taken_when_it_is_installed_beside_a_gpu() -> None:
    installed = code.described(
        gpu="H100", gpu_free_bytes=80 * 10**9, capability=(9, 0), bf16=True, unsloth=True
    )
    assert planned(installed, SEVEN_B).backend == "unsloth"
    assert planned(installed, SMALL).backend == "own"
    assert planned(LARGE, SEVEN_B).backend == "own"
    assert planned(code.described(unsloth=True), SMALL).backend == "own"


def test_float32_is_taken_when_the_gpu_has_no_bfloat16() -> None:
    old = code.described(gpu="T4", gpu_free_bytes=15 * 10**9, capability=(7, 5))
    assert planned(old, HALF_B).dtype == "float32"


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"method": "qlora"}, "need an NVIDIA GPU"),
        ({"device": "cuda"}, "finds no NVIDIA GPU"),
        ({"backend": "unsloth"}, "needs the package unsloth"),
    ],
)
def test_it_is_refused_when_what_is_asked_for_is_not_there(how: Any, told: str) -> None:
    with pytest.raises(errors.ConfigError, match=told):
        planned(code.MACHINE, SMALL, **how)


def test_peft_is_taken_when_it_is_asked_for_and_there() -> None:
    assert planned(code.MACHINE, SMALL, backend="peft").backend == "peft"
    with pytest.raises(errors.ConfigError, match="pip install"):
        planned(code.described(peft=False), SMALL, backend="peft")


def test_activations_are_computed_twice_when_the_ram_is_small() -> None:
    assert not planned(code.MACHINE, SMALL).gradient_checkpointing
    assert planned(code.described(memory_bytes=10**8), SMALL).gradient_checkpointing


def test_this_machine_says_what_it_has() -> None:
    here = hardware.found()
    assert here.cores >= 1 and str(here.cores) in str(here)
    assert here.cuda == bool(here.capability[0])


def test_a_base_is_measured_when_its_text_model_is_one_of_several() -> None:
    text = {"hidden_size": 8, "num_hidden_layers": 3, "vocab_size": 11}
    several = torch.nn.Linear(2, 4, bias=False)
    several.config = transformers.Gemma3Config(text_config={**text, "max_position_embeddings": 77})
    assert plan.shape(several) == plan.Shape(8, 3, 8, 11, 77)
