"""Small stand-ins that several tests use. Each is real data or a plain object, never a mock."""

from __future__ import annotations

import base64
import json
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


def keyring(state_dir: pathlib.Path, *more: signature.Signer) -> pathlib.Path:
    """Makes a state folder trust `signer()`, and some others."""
    folder = state_dir / "keyring"
    for trusted in (signer(), *more):
        trusted.publish(folder)
    return folder


FORGERIES = (
    "unsigned",
    "a bit of the signature",
    "a digit of the payload",
    "unknown signer",
    "stranger under a trusted id",
    "another card",
    "another name",
    "another base",
    "another payload type",
)
"""What may be wrong with a card's signature; see `forged`."""


def forged(wrong: str, envelope_json: str, stranger: signature.Signer) -> str:
    """What must not pass for a signature of a card.

    Args:
        wrong: one of `FORGERIES`.
        envelope_json: the right signature, by `signer()`.
        stranger: a signer whom nobody trusts.
    """
    envelope = json.loads(envelope_json)
    payload = base64.b64decode(envelope["payload"])
    [proof] = envelope["signatures"]

    def of(by: signature.Signer, **changed: str) -> str:
        return by.sign(signature.Statement(**(json.loads(payload) | changed)))

    def with_proof(sig: str) -> str:
        return json.dumps(envelope | {"signatures": [proof | {"sig": sig}]})

    match wrong:
        case "unsigned":
            return ""
        case "a bit of the signature":
            return with_proof(_one_bit_changed(proof["sig"]))
        case "a digit of the payload":
            changed = payload.replace(b'"version":"1', b'"version":"2')
            return json.dumps(envelope | {"payload": base64.b64encode(changed).decode()})
        case "unknown signer":
            return of(stranger)
        case "stranger under a trusted id":
            return with_proof(json.loads(of(stranger))["signatures"][0]["sig"])
        case "another card":
            return of(signer(), digest="0" * 64)
        case "another name":
            return of(signer(), name="another")
        case "another base":
            return of(signer(), base_fingerprint="0" * 64)
        case "another payload type":
            return json.dumps(envelope | {"payloadType": "application/json"})
    raise ValueError(wrong)


def _one_bit_changed(text: str) -> str:
    found = base64.b64decode(text)
    return base64.b64encode(bytes([found[0] ^ 1]) + found[1:]).decode()


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
