"""`skillmesh doctor` at a real card store: signatures, files, and nodes that lag behind."""

from __future__ import annotations

import asyncio
import hashlib
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from services.gateway.command_line.doctor import findings, running
from shared import settings as config
from shared.cards import format as formats
from shared.pb import cards_pb2, inference_pb2, inference_pb2_grpc, types_pb2
from shared.rpc import client
from tests import fakes
from tests.contract.card_store_processes import Store
from tests.contract.command_runs import Commands
from tests.contract.served_apart import served

pytestmark = pytest.mark.usefixtures("patient")


@pytest.fixture
def store(tmp_path: pathlib.Path) -> Iterator[Store]:
    opened = Store(tmp_path / "store", security={"require_signatures": True})
    yield opened
    opened.stop()


def published(store: Store, name: str) -> str:
    """A card that is signed by a signer whom the keyring knows."""
    card = fakes.tiny_card(name)
    data = formats.LoRAFormat.to_bytes(card)
    digest = hashlib.sha256(data).hexdigest()

    async def commit() -> None:
        await asyncio.to_thread(store.put, data)
        async with store.stub() as stub:
            request = cards_pb2.CommitRequest(
                idempotency_key=digest,
                ticket=types_pb2.Ticket(kind="card", digest=digest),
                signature_json=fakes.envelope(card, digest),
            )
            await client.call(stub.Commit, request)

    asyncio.run(commit())
    return digest


def by_about(found: Any) -> dict[str, findings.Finding]:
    return {finding.about: finding for finding in found}


def test_signatures_and_files_of_the_store_are_looked_at(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = Commands(monkeypatch, store.root)
    assert list(running.store(config.load())) == []  # Nobody answers there.
    commands.set("CARD_STORE__ADDRESS", store.control_address)
    digest = published(store, "kept")
    found = by_about(running.store(config.load()))
    assert [found[name].level for name in ("signatures", "store")] == ["ok", "ok"]
    (store.root / "keyring" / f"{fakes.signer().key_id}.pem").unlink()
    (store.root / "card_store" / "blobs" / digest).unlink()
    found = by_about(running.store(config.load()))
    assert "1 of 1 cards are not trusted" in found["signatures"].text
    assert (found["store"].level, "kept@" in found["store"].text) == ("error", True)


class Node(inference_pb2_grpc.InferenceServicer):
    """Follows the store, or does not."""

    def __init__(self) -> None:
        self.status = inference_pb2.NodeStatus(node_id="n", base_model="embedded")

    async def GetNodeStatus(
        self, request: inference_pb2.GetNodeStatusRequest, context: Any
    ) -> inference_pb2.NodeStatus:
        return self.status


def test_nodes_that_lag_or_lost_the_store_are_told(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(store, "followed")
    node = Node()  # type: ignore[abstract]

    def add(server: Any) -> str:
        inference_pb2_grpc.add_InferenceServicer_to_server(node, server)
        return inference_pb2.DESCRIPTOR.services_by_name["Inference"].full_name

    commands = Commands(monkeypatch, store.root)
    commands.set("CARD_STORE__ADDRESS", store.control_address)
    assert list(running.nodes(config.load())) == []  # Told by the check of the services.
    with served(add) as port:
        commands.set("INFERENCE__ADDRESS", f"127.0.0.1:{port}")
        [lost] = running.nodes(config.load())
        assert (lost.level, "lost the card store" in lost.text) == ("error", True)
        node.status.store_connected = True
        [behind] = running.nodes(config.load())
        assert (behind.level, "behind the store" in behind.text) == ("warning", True)
        node.status.revision = 1_000
        [well] = running.nodes(config.load())
        assert well.level == "ok"
