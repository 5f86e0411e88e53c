"""How a card of a code base is to be trained on a machine, and why so, in words.

A pure function of what the machine has, what the base is and how much there is to learn: so that
choices for machines that are not at hand can be looked at. No machine with a GPU has run what is
chosen here for it, within this project.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any, Literal

import torch

from services.trainer.specialist import hardware as machines
from shared import codebase_settings, errors

Backend = Literal["own", "peft", "unsloth"]
_CPU_FLOPS = 4.0e10
"""Arithmetic a second of one thread: the embedded base was trained at 4.6e10."""
_GPU_STEP_TOKENS, _CPU_STEP_TOKENS = 8_192, 1_600
_LEAST_ROWS, _MOST_ROWS = 2, 32
_GPU_SHARE = 0.85
"""Of the free memory that a plan fills; the rest is the allocator's."""
_STATES_A_LAYER = 16
"""Hidden states that a decoder layer keeps for its backward pass, for each token."""
_NF4_BYTES = 0.6
"""Of a weight in 4 bits, with its share of the scales and of what is not quantised."""
_BF16_FROM, _UNSLOTH_FROM = (8, 0), (7, 0)
"""Compute capabilities."""
_LEAST_STEPS = 20
"""A training that the time of a CPU would cut below is not worth it."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """What matters of a base model."""

    parameters: int
    layers: int
    hidden: int
    vocabulary: int
    positions: int
    """Tokens that it can read at once."""
    embedded: bool = False
    """Whether it is the model that this project ships."""
    bytes_a_weight: int = 4
    """As it is loaded now."""


@dataclasses.dataclass(frozen=True)
class Work:
    """How much there is to learn."""

    examples: int
    mean_tokens: float
    """Of an example, prompt and output."""
    replay_tokens: int = 0
    """Of the replayed questions of one step."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """A choice, with its reasons."""

    backend: Backend
    method: Literal["lora", "qlora"]
    dtype: Literal["float32", "bfloat16"]
    device: Literal["cpu", "cuda"]
    gradient_checkpointing: bool
    batch_rows: int
    steps: int
    target_modules: tuple[str, ...]
    rank: int
    why: str

    def recipe(self) -> dict[str, str | int | float]:
        """For the lineage of the card."""
        told: dict[str, Any] = dataclasses.asdict(self)
        for name in ("gradient_checkpointing", "target_modules", "why", "steps", "batch_rows"):
            del told[name]
        return {
            **told,
            "gradient_checkpointing": int(self.gradient_checkpointing),
            "plan": self.why,
        }


def shape(model: Any, embedded: bool = False) -> Shape:
    """That of a loaded causal LM."""
    config = model.config.get_text_config()
    first = next(model.parameters())
    return Shape(
        parameters=sum(p.numel() for p in model.parameters()),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        vocabulary=config.vocab_size,
        positions=getattr(config, "max_position_embeddings", None) or 2048,
        embedded=embedded,
        bytes_a_weight=first.element_size() if first.is_floating_point() else 4,
    )


def context_tokens(shape: Shape, settings: codebase_settings.Specialist) -> int:
    """Tokens of an example, at most."""
    return min(settings.context_tokens, shape.positions)


def plan(
    hardware: machines.Hardware,
    shape: Shape,
    work: Work,
    settings: codebase_settings.Specialist,
    threads: int = 1,
) -> Plan:
    """What to train how.

    Args:
        hardware: the machine.
        shape: of the base.
        work: to be done.
        settings: what is asked for; `auto` leaves the choice here.
        threads: of a training on the CPU.

    Raises:
        errors.ConfigError: what is asked for is not there, or does not fit; the message says what
            to change.
    """
    reasons = [f"machine: {hardware}"]
    device = _device(hardware, settings, reasons)
    step_tokens = _GPU_STEP_TOKENS if device == "cuda" else _CPU_STEP_TOKENS
    fitting = int(step_tokens / max(1.0, work.mean_tokens))
    rows = min(max(_LEAST_ROWS, fitting), _MOST_ROWS, max(_LEAST_ROWS, work.examples))
    if device == "cuda":
        dtype = _gpu_dtype(hardware, reasons)
        method, rows, checkpointing = _fitted(
            hardware, shape, settings, dtype, rows, work.mean_tokens, reasons
        )
    tokens = rows * work.mean_tokens + work.replay_tokens
    if device == "cpu":
        dtype, method = "float32" if shape.bytes_a_weight == 4 else "bfloat16", "lora"
        if settings.method == "qlora":
            raise errors.ConfigError(
                "trainer.specialist.method qlora: 4-bit bases need an NVIDIA GPU; take lora or auto"
            )
        reasons.append(f"LoRA in {dtype}, as the base is loaded: 4 bits are slower on a CPU")
        kept_bytes = _kept_bytes(shape, tokens, shape.bytes_a_weight)
        checkpointing = bool(hardware.memory_bytes) and kept_bytes > hardware.memory_bytes / 2
        if checkpointing:
            reasons.append("gradient checkpointing: the activations would take half of the RAM")
    backend = _backend(hardware, shape, settings, device, reasons)
    reasons.append(
        f"{'LoRA' if method == 'lora' else 'QLoRA'} of rank {settings.rank} on "
        f"{', '.join(settings.target_modules)}"
    )
    steps = max(1, math.ceil(settings.epochs * work.examples / rows))
    told = f"{settings.epochs:g} passes over {work.examples} examples are {steps} steps of {rows}"
    if steps < settings.min_steps:
        steps = settings.min_steps
        told += f", raised to trainer.specialist.min_steps, {steps}"
    if device == "cpu":
        # Frozen weights take no gradients: forward and the way back are 2 operations each.
        flops = (4 + 2 * checkpointing) * shape.parameters * tokens
        most = int(settings.cpu_minutes * 60 * threads * _CPU_FLOPS / flops)
        if most < _LEAST_STEPS:
            raise errors.ConfigError(
                f"trainer.specialist.cpu_minutes: in {settings.cpu_minutes:g} minutes a CPU takes "
                f"about {most} steps with this base, fewer than {_LEAST_STEPS}; raise it to "
                f"{math.ceil(settings.cpu_minutes * _LEAST_STEPS / max(most, 0.1))}, choose a "
                "smaller base, or train on a GPU"
            )
        if steps > most:
            steps = most
            told += (
                f", cut to {most}: as many as {threads} thread(s) take in about "
                f"{settings.cpu_minutes:g} minutes"
            )
    reasons.append(told)
    return Plan(
        backend=backend,
        method=method,
        dtype=dtype,
        device=device,
        gradient_checkpointing=checkpointing,
        batch_rows=rows,
        steps=steps,
        target_modules=settings.target_modules,
        rank=settings.rank,
        why="; ".join(reasons),
    )


def _device(
    hardware: machines.Hardware, settings: codebase_settings.Specialist, reasons: list[str]
) -> Literal["cpu", "cuda"]:
    if settings.device == "cuda" and not hardware.cuda:
        raise errors.ConfigError(
            "trainer.specialist.device cuda: torch finds no NVIDIA GPU here; take cpu or auto"
        )
    if settings.device == "cpu" and hardware.cuda:
        reasons.append("on the CPU, as trainer.specialist.device asks")
        return "cpu"
    reasons.append("on the GPU" if hardware.cuda else "on the CPU: there is no GPU")
    return "cuda" if hardware.cuda else "cpu"


def _gpu_dtype(hardware: machines.Hardware, reasons: list[str]) -> Literal["float32", "bfloat16"]:
    if hardware.bf16 and hardware.capability >= _BF16_FROM:
        reasons.append("bfloat16: half the memory, and the GPU computes in it")
        return "bfloat16"
    reasons.append("float32: this GPU does not compute in bfloat16")
    return "float32"


def _kept_bytes(shape: Shape, tokens: float, item_bytes: int, checkpointing: bool = False) -> float:
    """Activations for the backward pass, and float32 logits at most."""
    layer = _STATES_A_LAYER * shape.hidden * item_bytes
    # Twice computed: what enters each layer, and all of one layer at a time.
    states = (
        shape.layers * shape.hidden * item_bytes + layer
        if checkpointing
        else (shape.layers * layer)
    )
    return tokens * (states + 4 * shape.vocabulary)


def _fitted(
    hardware: machines.Hardware,
    shape: Shape,
    settings: codebase_settings.Specialist,
    dtype: str,
    rows: int,
    row_tokens: float,
    reasons: list[str],
) -> tuple[Literal["lora", "qlora"], int, bool]:
    """Method, rows and gradient checkpointing, the fastest that fits the GPU.

    Activations are computed twice before rows are fewer, and rows are fewer before the base is kept
    in 4 bits.
    """
    item_bytes = torch.finfo(getattr(torch, dtype)).bits // 8
    room = _GPU_SHARE * hardware.gpu_free_bytes
    methods: tuple[tuple[Literal["lora", "qlora"], float], ...] = (
        ("lora", shape.parameters * item_bytes),
        ("qlora", shape.parameters * _NF4_BYTES),
    )
    asked = [one for one in methods if settings.method in ("auto", one[0])]
    usable = [one for one in asked if one[0] == "lora" or hardware.bitsandbytes]
    halved = [rows >> by for by in range(rows.bit_length()) if rows >> by >= _LEAST_ROWS]
    for (method, base_bytes), some, checkpointing in itertools.product(
        usable, halved, (False, True)
    ):
        taken = base_bytes + _kept_bytes(shape, some * row_tokens, item_bytes, checkpointing)
        if taken > room:
            continue
        base = "the base in 4 bits (nf4)" if method == "qlora" else f"the base in {dtype}"
        twice = ", activations computed twice (gradient checkpointing)" if checkpointing else ""
        fewer = f", {some} rows a step in place of {rows}" if some < rows else ""
        reasons.append(f"{base}{twice}{fewer}: {taken / 1e9:.1f} of {room / 1e9:.1f} GB")
        return method, some, checkpointing
    kept = _kept_bytes(shape, _LEAST_ROWS * row_tokens, item_bytes, checkpointing=True)
    least = kept + min(base_bytes for _, base_bytes in asked)
    raise errors.ConfigError(
        f"trainer.specialist: training this base takes {least / 1e9:.1f} GB at least, the GPU has "
        f"{room / 1e9:.1f} GB to spare; "
        + ("install bitsandbytes for a 4-bit base, or " if len(usable) < len(asked) else "")
        + "choose a smaller base, or fewer trainer.specialist.context_tokens"
    )


def _backend(
    hardware: machines.Hardware,
    shape: Shape,
    settings: codebase_settings.Specialist,
    device: str,
    reasons: list[str],
) -> Backend:
    if settings.backend == "peft" and not hardware.peft:
        raise errors.ConfigError(
            "trainer.specialist.backend peft needs the package peft: pip install '.[peft]', or "
            "choose auto"
        )
    able = hardware.unsloth and device == "cuda" and hardware.capability >= _UNSLOTH_FROM
    if settings.backend == "unsloth" and not able:
        raise errors.ConfigError(
            "trainer.specialist.backend unsloth needs the package unsloth and an NVIDIA GPU of "
            "compute capability 7.0 or higher; choose auto"
        )
    if settings.backend != "auto":
        reasons.append(f"backend {settings.backend}, as trainer.specialist.backend asks")
        return settings.backend
    if able and not shape.embedded:
        reasons.append("backend unsloth: its kernels are made for this GPU")
        return "unsloth"
    if device == "cuda":
        why = "the embedded base is none that Unsloth knows" if able else "Unsloth is not installed"
        reasons.append(f"backend own: {why}")
    else:
        reasons.append("backend own: the same numbers as PEFT's, in less time and memory")
    return "own"
