"""Small stand-ins that several tests use. Each is real data or a plain object, never a mock."""

from __future__ import annotations

import pathlib

import numpy as np
import pyarrow as pa
from cryptography.hazmat.primitives.asymmetric import ed25519

from shared.cards import card as cards
from shared.cards import manifest as manifests
from shared.cards import signature

FINGERPRINT = "f" * 64
BITS = {"float32": np.uint32, "float16": np.uint16, "bfloat16": np.uint16}
NOT_FINITE = {"float32": 0x7F800000, "float16": 0x7C00, "bfloat16": 0x7F80}
"""Bits of the exponent: all of them set means infinity or NaN."""


def signer(seed: int = 0) -> signature.Signer:
    """A signer whose key everybody can make; another seed gives another key."""
    return signature.Signer(ed25519.Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


def envelope(card: cards.LoRACard, digest: str, by: signature.Signer | None = None) -> str:
    """The signature of a card's file."""
    manifest = card.manifest
    statement = signature.Statement(
        manifest.name, manifest.version, digest, manifest.base_model.fingerprint
    )
    return (by or signer()).sign(statement)


def keyring(state_dir: pathlib.Path) -> pathlib.Path:
    """Makes a state folder trust `signer()`."""
    folder = state_dir / "keyring"
    signer().publish(folder)
    return folder


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
