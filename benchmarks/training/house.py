"""The learning loop in one process: the factory's workflow with its real partners, without gRPC.

Distiller, trainer, gate, router check and store decisions are the ones that run in production; what
travels over the network there is handed over here. Drafts are kept by what they were made from, so
that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import pathlib
import time
from collections.abc import AsyncIterator, Sequence

from benchmarks import results
from benchmarks.router import production
from benchmarks.router import vectors as kept_vectors
from benchmarks.training import made_up
from services.distiller import delivery, distillation, distiller, journal, rewording
from services.distiller.providers import base as providers
from services.router import embedding, profile
from services.router import router as routers
from services.trainer import trainer, workshop
from shared import settings as config
from shared.cards import card as cards
from shared.cards import signature
from shared.flight import datasets
from shared.models import base as bases

FOLDER = results.KEPT / "training"


class Teacher(providers.CloudProvider):
    """Says what a made-up set says."""

    name = "made-up"
    queries_a_call = 64

    def __init__(self, told: made_up.FactSet) -> None:
        """Takes the set."""
        self._told = told

    async def generate_qa(self, request: providers.QARequest) -> list[datasets.QAPair]:
        """All pairs of the set."""
        return list(self._told.pairs)

    async def subject(
        self, request: providers.QARequest, pairs: Sequence[datasets.QAPair]
    ) -> providers.Subject:
        """The thing that the set is about."""
        return providers.Subject(self._told.title)


class Bytes:
    """The card store's data plane in memory."""

    def __init__(self) -> None:
        """Starts empty."""
        self.kept: dict[str, bytes] = {}

    async def put(self, kind: str, data: bytes) -> str:
        """Keeps bytes; their digest."""
        digest = hashlib.sha256(data).hexdigest()
        self.kept[digest] = data
        return digest

    async def get(self, digest: str) -> bytes:
        """The bytes of a digest."""
        return self.kept[digest]
