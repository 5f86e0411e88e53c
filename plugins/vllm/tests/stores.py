"""A card store made by hand, whose answers tests choose, and cards to put in it."""

from __future__ import annotations

import hashlib
import json
import threading
from typing import Any

import pyarrow as pa
import pyarrow.flight
import torch
from skillmesh_vllm import errors, store

from shared.cards import card as cards
from shared.cards import format as formats
from shared.lora import tensors
from shared.models import base as bases
from tests import tiny_model

BASE = tiny_model.tiny_base()
RAW_SCHEMA = pa.schema([pa.field("chunk", pa.large_binary(), nullable=False)])


def card(dtype: str = "float32", base: bases.BaseModel = BASE, **chosen: Any) -> cards.LoRACard:
    found = tiny_model.card_for(base, **chosen)
    modules = {
        path: tensors.weights_of(tensors.adapter_of(weights, torch.float32), weights.alpha, dtype)
        for path, weights in found
    }
    return cards.LoRACard(found.manifest, modules)


def file_of(made: cards.LoRACard) -> tuple[bytes, str]:
    data = formats.LoRAFormat.to_bytes(made)
    return data, hashlib.sha256(data).hexdigest()


class FakeStore(store.CardStore):
    """In memory; `hold` keeps downloads waiting until the test lets them go."""

    def __init__(self) -> None:
        self.meant: dict[str, store.Card] = {}
        self.files: dict[str, bytes] = {}
        self.fetched: list[str] = []
        self.asked: list[str] = []
        self.away = False
        self.hold = threading.Event()
        self.hold.set()

    def publish(self, made: cards.LoRACard, *aliases: str, says_base: bool = True) -> store.Card:
        data, digest = file_of(made)
        base = made.manifest.base_model.fingerprint if says_base else ""
        record = store.Card(made.name, digest, len(data), base)
        self.files[digest] = data
        for reference in (digest, "latest", *aliases):
            self.meant[f"{made.name}@{reference}"] = record
        self.meant[made.name] = record
        return record

    def find(self, reference: str) -> store.Card:
        self.asked.append(reference)
        reference = reference.partition("#")[0]
        if self.away:
            raise errors.UnavailableError("the store is away")
        if reference not in self.meant:
            raise errors.NotFoundError(reference)
        return self.meant[reference]

    def fetch(self, card: store.Card) -> pa.Buffer:
        self.fetched.append(card.digest)
        assert self.hold.wait(30)
        return pa.py_buffer(self.files[card.digest])


class _Seen(pyarrow.flight.ServerMiddlewareFactory):  # type: ignore[misc]
    def __init__(self) -> None:
        self.headers: list[dict[str, list[str]]] = []

    def start_call(self, info: Any, headers: dict[str, list[str]]) -> None:
        self.headers.append(headers)


class FlightStore(pyarrow.flight.FlightServerBase):  # type: ignore[misc]
    """A data plane that says whatever the test wants."""

    def __init__(self) -> None:
        self.listed: dict[str, object] = {}
        self.sent: list[bytes] = []
        self.seen = _Seen()
        super().__init__("grpc://127.0.0.1:0", middleware={"seen": self.seen})

    def get_flight_info(self, context: Any, descriptor: Any) -> pyarrow.flight.FlightInfo:
        reference = descriptor.path[0].decode()
        if reference not in self.listed:
            raise KeyError(f"no card {reference}")
        command = json.dumps(self.listed[reference])
        described = pyarrow.flight.FlightDescriptor.for_command(command)
        return pyarrow.flight.FlightInfo(RAW_SCHEMA, described, [], -1, -1)

    def do_get(self, context: Any, ticket: Any) -> pyarrow.flight.RecordBatchStream:
        batches = [
            pa.record_batch([pa.array([piece], pa.large_binary())], schema=RAW_SCHEMA)
            for piece in self.sent
        ]
        return pyarrow.flight.GeneratorStream(RAW_SCHEMA, iter(batches))
