"""Cards of a wanted size, made without a model, and their way into a store."""

from __future__ import annotations

import dataclasses
import hashlib

import grpc
import numpy as np
import pyarrow as pa
from cryptography.hazmat.primitives.asymmetric import ed25519

from shared.cards import card as cards
from shared.cards import format as formats
from shared.cards import manifest as manifests
from shared.cards import signature
from shared.flight import client as flight_client
from shared.pb import cards_pb2, cards_pb2_grpc, types_pb2

SIGNER = signature.Signer(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)))
"""Whom the stores and nodes of the benchmark trust."""
_FEATURES, _RANK = 4096, 16
_MODULE_BYTES = 2 * _FEATURES * _RANK * 2


def of_size(name: str, size_bytes: int, fingerprint: str = "f" * 64) -> bytes:
    """The file of a card of about that size, float16 with random weights."""
    count = max(1, size_bytes // _MODULE_BYTES)
    features = _FEATURES if size_bytes >= _MODULE_BYTES else 64
    generator = np.random.default_rng(int(hashlib.sha256(name.encode()).hexdigest()[:8], 16))

    def matrix() -> pa.Buffer:
        values = generator.standard_normal(features * _RANK, dtype=np.float32) * 0.02
        return pa.py_buffer(values.astype(np.float16).tobytes())

    modules = {
        f"model.layers.{number}.self_attn.q_proj": cards.ModuleWeights(
            _RANK, features, features, 2.0 * _RANK, "float16", matrix(), matrix()
        )
        for number in range(count)
    }
    card = cards.LoRACard(manifest(name, fingerprint, ("q_proj",)), modules)
    return formats.LoRAFormat.to_bytes(card)


def manifest(name: str, fingerprint: str, kinds: tuple[str, ...]) -> manifests.Manifest:
    """What such a card says of itself."""
    return manifests.Manifest(
        name=name,
        version="1.0.0",
        base_model=manifests.BaseModelReference(
            id="benchmark", revision="main", fingerprint=fingerprint
        ),
        target_modules=kinds,
        domain="benchmarks",
        description=f"card {name} of the benchmark",
        created_at="2026-01-01T00:00:00+00:00",
    )


@dataclasses.dataclass(frozen=True)
class Uploaded:
    """A card that waits to be committed."""

    digest: str
    signature_json: str


def upload(flight_address: str, files: list[bytes]) -> list[Uploaded]:
    """Uploads files of cards, one after another, and signs them."""
    client = flight_client.LoRAFlightClient(flight_address)
    try:
        digests = [client.put("card", data) for data in files]
    finally:
        client.close()
    return [
        Uploaded(digest, _signed(digest, data)) for digest, data in zip(digests, files, strict=True)
    ]


async def commit(channel: grpc.aio.Channel, card: Uploaded) -> None:
    """Publishes an uploaded card."""
    request = cards_pb2.CommitRequest(
        idempotency_key=card.digest,
        ticket=types_pb2.Ticket(kind="card", digest=card.digest),
        signature_json=card.signature_json,
    )
    await cards_pb2_grpc.CardStoreStub(channel).Commit(request, timeout=30)


def _signed(digest: str, data: bytes) -> str:
    manifest = formats.LoRAFormat.from_bytes(data).manifest
    fingerprint = manifest.base_model.fingerprint
    return SIGNER.sign(signature.Statement(manifest.name, manifest.version, digest, fingerprint))
