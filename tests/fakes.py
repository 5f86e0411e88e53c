"""Small stand-ins that several tests use. Each is real data or a plain object, never a mock."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from shared.cards import card as cards
from shared.cards import manifest as manifests

FINGERPRINT = "f" * 64
BITS = {"float32": np.uint32, "float16": np.uint16, "bfloat16": np.uint16}
NOT_FINITE = {"float32": 0x7F800000, "float16": 0x7C00, "bfloat16": 0x7F80}
"""Bits of the exponent: all of them set means infinity or NaN."""


def tiny_card(
    name: str = "tiny", version: str = "1.0.0", seed: int = 0, modules: int = 2, features: int = 8
) -> cards.LoRACard:
    """A valid rank-2 card made without torch; another seed gives other weights."""
    generator = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> pa.Buffer:
        return pa.py_buffer(generator.standard_normal((rows, columns)).astype("float16").tobytes())

    manifest = manifests.Manifest(
        name=name,
        version=version,
        base_model=manifests.BaseModelReference(
            id="embedded", revision="", fingerprint=FINGERPRINT
        ),
        target_modules=("q_proj",),
        domain="testing",
        description=f"card {name} of the tests",
        created_at="2025-01-01T00:00:00+00:00",
    )
    weights = {
        f"model.layers.{layer}.self_attn.q_proj": cards.ModuleWeights(
            rank=2,
            in_features=features,
            out_features=features,
            alpha=4.0,
            dtype="float16",
            lora_a=matrix(features, 2),
            lora_b=matrix(2, features),
        )
        for layer in range(modules)
    }
    return cards.LoRACard(manifest, weights)


def any_weights(
    dtype: str, rank: int, rows: int, columns: int, seed: int = 0
) -> cards.ModuleWeights:
    """Any finite bit patterns, subnormal numbers and negative zeros among them."""
    generator = np.random.default_rng(seed)

    def bits(count: int) -> pa.Buffer:
        values = generator.integers(0, np.iinfo(BITS[dtype]).max, count, BITS[dtype], endpoint=True)
        mask = BITS[dtype](NOT_FINITE[dtype])
        values[(values & mask) == mask] = 0
        return pa.py_buffer(values.tobytes())

    return cards.ModuleWeights(
        rank, rows, columns, 8.0, dtype, bits(rows * rank), bits(rank * columns)
    )
