"""What the router talks to, in the test's own process: an embedder, a factory, a card store."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import zlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from shared.cards import manifest as manifests
from shared.cards import signature
from shared.models.embedded.recipe import families
from shared.pb import cards_pb2, cards_pb2_grpc, factory_pb2, factory_pb2_grpc
from shared.rpc import server as rpc_server
from tests import fakes

DIMENSION = 96
HEARTBEAT_S = 0.05


class HashingEmbedder:
    """Texts with the same words get the same vector; a text without words gets zeros."""

    vectors_id = "hashing"

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        vectors = np.zeros((len(texts), DIMENSION), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                code = zlib.crc32(word.encode())
                vectors[row, code % DIMENSION] += 1.0 if code & 1024 else -1.0
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(norms > 0, norms, 1.0)

    def vocabulary(self) -> list[str]:
        texts = (text for family in families.load() for text in family.questions)
        return list(dict.fromkeys(word for t in texts for word in re.findall(r"[a-z]+", t.lower())))


def about(thing: str) -> tuple[str, ...]:
    """Example questions of a card about one thing."""
    return (
        f"How tall is {thing}?", f"What is the height of {thing}?", f"How high is {thing}?",
        f"Who built {thing}?", f"Name the builder of {thing}.", f"By whom was {thing} built?",
        f"When was {thing} opened?", f"In which year was {thing} opened?",
    )  # fmt: skip


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def card_record(
    name: str,
    thing: str,
    version: str = "1.0.0",
    by: signature.Signer | None = None,
    route: str = "",
) -> cards_pb2.CardRecord:
    """A store's record of a card about one thing."""
    manifest = manifests.Manifest(
        name=name,
        version=version,
        base_model=manifests.BaseModelReference(id="embedded", revision="", fingerprint="f" * 64),
        target_modules=("q_proj",),
        domain="testing",
        description=f"Facts about {thing}",
        routing=manifests.RoutingProfile(
            route=route, embedder_id="fake", centroid=(), spread=0.0, examples=about(thing)
        ),
        created_at="2025-01-01T00:00:00+00:00",
    )
    digest = digest_of(f"{name} {thing} {version}")
    fingerprint = manifest.base_model.fingerprint
    return cards_pb2.CardRecord(
        name=name,
        digest=digest,
        version=version,
        base_fingerprint=fingerprint,
        signature_json=(by or fakes.signer()).sign(
            signature.Statement(name, version, digest, fingerprint)
        ),
        domain=manifest.domain,
        description=manifest.description,
        aliases=["latest"],
        manifest_json=manifest.to_json(),
    )


class FakeFactory(factory_pb2_grpc.FactoryServicer):
    """Counts every delivery; `next_error` refuses one."""

    def __init__(self) -> None:
        self.reports: list[factory_pb2.CognitiveDissonance] = []
        self.next_error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self._came = asyncio.Condition()

    async def ReportDissonance(
        self, request: factory_pb2.CognitiveDissonance, context: Any
    ) -> factory_pb2.ReportDissonanceResponse:
        await self.gate.wait()
        if self.next_error is not None:
            error, self.next_error = self.next_error, None
            raise error
        async with self._came:
            self.reports.append(request)
            self._came.notify_all()
        return factory_pb2.ReportDissonanceResponse(task_id="task", created=True)

    async def received(self, count: int) -> list[factory_pb2.CognitiveDissonance]:
        async with self._came:
            await self._came.wait_for(lambda: len(self.reports) >= count)
        return self.reports


class FakeStore(cards_pb2_grpc.CardStoreServicer):
    """A revision log in memory; `silent` stops the heartbeats, `drop` ends all watches."""

    def __init__(self, store_id: str = "store-1") -> None:
        self.store_id = store_id
        self.log: list[cards_pb2.Change] = []
        self.latest: dict[str, cards_pb2.CardRecord] = {}
        self.revoked_keys: list[str] = []
        self.watched_from: list[int] = []
        self.listings = 0
        self.silent = False
        self._news = asyncio.Condition()
        self._line = 0

    async def publish(self, record: cards_pb2.CardRecord) -> int:
        return await self._append(cards_pb2.CARD_PUBLISHED, record, "")

    async def move_latest(self, record: cards_pb2.CardRecord) -> int:
        return await self._append(cards_pb2.ALIAS_MOVED, record, "latest")

    async def withdraw(self, record: cards_pb2.CardRecord, instead: Any = None) -> int:
        """Revokes a card; `latest` goes to another version, if there is one."""
        gone = cards_pb2.CardRecord()
        gone.CopyFrom(record)
        gone.state = cards_pb2.REVOKED
        del gone.aliases[:]
        if self.latest.get(record.name) == record:
            del self.latest[record.name]
        revision = await self._append(cards_pb2.CARD_REVOKED, gone, "")
        return revision if instead is None else await self.move_latest(instead)

    async def revoke_key(self, key_id: str) -> int:
        """Revokes a key; the cards stay listed, as in a store that lies."""
        self.revoked_keys.append(key_id)
        async with self._news:
            revision = len(self.log) + 1
            kind = cards_pb2.KEY_REVOKED
            self.log.append(cards_pb2.Change(kind=kind, revision=revision, key_id=key_id))
            self._news.notify_all()
        return revision

    async def drop(self) -> None:
        async with self._news:
            self._line += 1
            self._news.notify_all()

    async def watched(self, count: int) -> None:
        async with self._news:
            await self._news.wait_for(lambda: len(self.watched_from) >= count)

    async def ListCards(self, request: Any, context: Any) -> cards_pb2.ListCardsResponse:
        self.listings += 1
        return cards_pb2.ListCardsResponse(
            cards=self.latest.values(), revision=len(self.log), revoked_keys=self.revoked_keys
        )

    async def GetStoreStatus(self, request: Any, context: Any) -> cards_pb2.StoreStatus:
        return cards_pb2.StoreStatus(store_id=self.store_id, revision=len(self.log))

    async def Watch(
        self, request: cards_pb2.WatchRequest, context: Any
    ) -> AsyncIterator[cards_pb2.Change]:
        async with self._news:
            self.watched_from.append(request.from_revision)
            self._news.notify_all()
        line, seen = self._line, request.from_revision
        while line == self._line:
            for change in self.log[seen:]:
                seen = change.revision
                yield change
            if not self.silent:
                yield cards_pb2.Change(kind=cards_pb2.HEARTBEAT, revision=seen)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_S), self._news:
                    await self._news.wait_for(
                        lambda at=seen: len(self.log) > at or line != self._line
                    )

    async def _append(self, kind: Any, record: cards_pb2.CardRecord, alias: str) -> int:
        async with self._news:
            revision = len(self.log) + 1
            if alias == "latest" or "latest" in record.aliases:
                self.latest[record.name] = record
            self.log.append(
                cards_pb2.Change(kind=kind, revision=revision, card=record, alias=alias)
            )
            self._news.notify_all()
        return revision


@contextlib.asynccontextmanager
async def factory_server(fake: FakeFactory, address: str = "127.0.0.1:0") -> AsyncIterator[str]:
    def add(server: grpc.aio.Server) -> str:
        factory_pb2_grpc.add_FactoryServicer_to_server(fake, server)
        return factory_pb2.DESCRIPTOR.services_by_name["Factory"].full_name

    async with _serving(rpc_server.Server([add], address)) as at:
        yield at


@contextlib.asynccontextmanager
async def store_server(fake: FakeStore, address: str = "127.0.0.1:0") -> AsyncIterator[str]:
    def add(server: grpc.aio.Server) -> str:
        cards_pb2_grpc.add_CardStoreServicer_to_server(fake, server)
        return cards_pb2.DESCRIPTOR.services_by_name["CardStore"].full_name

    async with _serving(rpc_server.Server([add], address)) as at:
        try:
            yield at
        finally:
            await fake.drop()


@contextlib.asynccontextmanager
async def _serving(server: rpc_server.Server) -> AsyncIterator[str]:
    await server.start()
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        await server.stop()
