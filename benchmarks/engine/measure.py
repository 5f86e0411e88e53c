"""Everything in the area, in order."""

from __future__ import annotations

import torch

from benchmarks import results
from benchmarks.engine import forward, serving, shapes, swapping
from shared import terminal
from shared.lora import lowrank
from shared.models import base as bases

_DECODING_ROUNDS, _ROUNDS, _LARGE_ROUNDS, _LARGE_PREFILL_ROUNDS = 200, 40, 10, 4
_RESIDENT, _RESIDENT_LARGE = 100, 20


def measure() -> list[results.Row]:
    """Takes some minutes; one thread, so that the machine's other core does what else there is."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows: list[results.Row] = []
        for what, part in (
            ("cards in and out", _swapping),
            ("tokens and prompts", _forward),
            ("the whole engine", _serving),
            ("extraction", _extraction),
        ):
            terminal.NOTES.print(f"engine: {what}")
            rows += part()
        return rows
    finally:
        torch.set_num_threads(threads)


def _swapping() -> list[results.Row]:
    large = shapes.qwen(torch.float32)
    found = swapping.rows(large, "", shapes.ATTENTION, shapes.RANK, _RESIDENT)
    found += swapping.rows(large, "_r16_all_seven", shapes.ALL_SEVEN, 16, _RESIDENT_LARGE)
    half = shapes.qwen(torch.bfloat16)
    found += swapping.rows(half, "_bf16", shapes.ATTENTION, shapes.RANK, _RESIDENT_LARGE)
    embedded = bases.load(bases.EMBEDDED).model
    return found + swapping.rows(embedded, "_embedded", shapes.ALL_SEVEN, shapes.RANK, _RESIDENT)


def _forward() -> list[results.Row]:
    embedded = bases.load(bases.EMBEDDED).model
    decoding, rounds = _DECODING_ROUNDS, _ROUNDS
    found = [
        forward.one_card(embedded, "decode_embedded_b1", 1, decoding, most=1.10),
        forward.one_card(embedded, "decode_embedded_b8", 8, decoding, most=1.10),
        forward.one_card(embedded, "prefill_embedded_b1", 1, rounds, prefill=True),
        forward.one_card(embedded, "prefill_embedded_b8", 8, rounds, prefill=True),
        forward.mixed(
            shapes.wide(), "mixed_decode_embedded_32", 32, rounds, most=1.4, prefill=False
        ),
        forward.mixed(
            shapes.wide(), "mixed_prefill_embedded_32", 32, rounds, most=1.3, prefill=True
        ),
    ]
    large = shapes.qwen(torch.bfloat16)
    return [
        *found,
        forward.one_card(large, "decode_bf16_b1", 1, _LARGE_ROUNDS),
        forward.one_card(large, "prefill_bf16_b1", 1, _LARGE_ROUNDS, prefill=True),
        forward.mixed(large, "mixed_decode_bf16_8", 8, _LARGE_ROUNDS, most=1.08, prefill=False),
        forward.mixed(
            large, "mixed_prefill_bf16_8", 8, _LARGE_PREFILL_ROUNDS, most=1.15, prefill=True
        ),
    ]


def _serving() -> list[results.Row]:
    base = bases.load(bases.EMBEDDED)
    return [
        *serving.swap_under_load(base),
        serving.tokens_per_second(base, 1),
        serving.tokens_per_second(base, 8),
    ]


def _extraction() -> list[results.Row]:
    """Of a random change with a spectrum like a fine-tuning's, beside the best of the rank."""
    generator = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(896, 128, generator=generator, dtype=torch.float64))[0]
    right = torch.linalg.qr(torch.randn(896, 128, generator=generator, dtype=torch.float64))[0]
    values = torch.arange(1, 129, dtype=torch.float64) ** -1.0
    change = (left * values) @ right.T
    whole = float(change.norm())

    def error(factors: lowrank.Factors) -> float:
        return float((change - factors.lora_a.double() @ factors.lora_b.double()).norm()) / whole

    best = float(values[shapes.RANK :].norm()) / whole
    exact = error(lowrank.exact(change.float(), shapes.RANK))
    sketched = error(lowrank.randomised(change.float(), shapes.RANK, generator))
    return [
        results.Row(
            "extraction_excess_error",
            max(0.0, exact - best),
            "relative",
            most=1e-5,
            note=f"error {exact:.6f}, the least possible {best:.6f}",
        ),
        results.Row(
            "extraction_randomised_energy",
            (1.0 - sketched**2) / (1.0 - best**2),
            "of the best",
            least=0.99,
        ),
    ]
