"""The operator's command line against the processes of a real store."""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
import typer.testing

from services.card_store.admin import cards
from shared.cards import format as formats
from shared.flight import client as flight_client
from shared.pb import cards_pb2, cards_pb2_grpc, types_pb2
from tests import fakes
from tests.contract.card_store_processes import Store

Run = Callable[..., str]


@pytest.fixture
def run(store: Store, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command against the store and returns what it printed."""
    monkeypatch.setenv("SKILLMESH_CONFIG", str(store.config))
    monkeypatch.setenv("COLUMNS", "200")

    def command(*arguments: str, fails: int = 0) -> str:
        is_local = arguments[0] in ("backup", "restore")
        address = () if is_local else ("--store", f"127.0.0.1:{store.control.port}")
        result = typer.testing.CliRunner().invoke(cards.app, [*arguments, *address])
        assert result.exit_code == fails, (result.output, result.exception)
        return result.output

    return command


def publish(store: Store, name: str, version: str = "1.0.0", seed: int = 0) -> str:
    data = formats.LoRAFormat.to_bytes(fakes.tiny_card(name, version, seed))
    client = flight_client.LoRAFlightClient(store.flight_address)
    digest = client.put("card", data)
    client.close()
    with grpc.insecure_channel(f"127.0.0.1:{store.control.port}") as channel:
        stub: Any = cards_pb2_grpc.CardStoreStub(channel)
        ticket = types_pb2.Ticket(kind="card", digest=digest)
        stub.Commit(cards_pb2.CommitRequest(idempotency_key=digest, ticket=ticket), timeout=30)
    return digest


def test_cards_are_listed_found_and_shown_when_asked(store: Store, run: Run) -> None:
    old, new = publish(store, "listed", "1.0.0"), publish(store, "listed", "1.1.0", 1)
    [latest] = json.loads(run("list", "--name", "listed", "--json"))
    assert (latest["digest"], latest["aliases"], latest["state"]) == (new, ["latest"], "ACTIVE")
    assert isinstance(latest["size_bytes"], int) and "manifest_json" not in latest
    both = json.loads(run("list", "--name", "listed", "--all", "--json"))
    assert {card["digest"] for card in both} == {old, new}
    assert new[:12] in run("search", "listed")
    assert run("search", "nowhere").strip() == "nothing"
    shown = json.loads(run("show", f"listed@{old}", "--json"))
    assert shown["manifest"]["version"] == "1.0.0" and shown["signature"] is None
    assert '"version": "1.1.0"' in run("show", "listed")
    for short in (old[:8], f"listed@{old[:12]}"):
        assert json.loads(run("show", short, "--json"))["digest"] == old
    assert "knows no card" in run("show", f"other@{old[:12]}", fails=1)


def test_alias_goes_forth_and_back_when_told_to(store: Store, run: Run) -> None:
    old, new = publish(store, "moved", "1.0.0"), publish(store, "moved", "1.1.0", 1)
    assert run("promote", old, "production").split() == ["moved@production", "is", "1.0.0,", old]
    run("promote", f"moved@{new}", "production")
    assert old in run("rollback", "moved", "production")
    moves = json.loads(run("history", "moved", "production", "--json"))
    assert [move["digest"] for move in moves] == [old, new, old]
    assert new in run("history", "moved", "production")
    run("rollback", "moved", "production", fails=1)


def test_cards_go_when_deleted_or_revoked(store: Store, run: Run) -> None:
    deleted, revoked = publish(store, "gone", "1.0.0"), publish(store, "gone", "1.1.0", 1)
    assert deleted in run("delete", f"gone@{deleted}", "--reason", "too old")
    assert revoked in run("revoke", "gone")
    assert json.loads(run("show", deleted, "--json"))["state"] == "DELETED"
    assert json.loads(run("show", revoked, "--json"))["state"] == "REVOKED"
    assert "no card here" in run("revoke", "--key", "0" * 32, "--reason", "lost")
    run("revoke", fails=2)
    run("revoke", "gone", "--key", "x", fails=2)
    assert "knows no card" in run("show", "gone", fails=1)
    deadline = time.monotonic() + 60
    while not any("too old" in line for line in store.control.log):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_nodes_and_peers_are_listed_when_there_are_some(store: Store, run: Run) -> None:
    digest = publish(store, "resident")
    report = cards_pb2.ReportResidencyRequest(
        node_id="node-1", base_fingerprint="f" * 64, revision=7, digests=[digest]
    )
    with grpc.insecure_channel(f"127.0.0.1:{store.control.port}") as channel:
        stub: Any = cards_pb2_grpc.CardStoreStub(channel)
        stub.ReportResidency(report, timeout=30)
    [node] = json.loads(run("residency", "resident", "--json"))
    assert (node["node_id"], node["revision"], node["digests"]) == ("node-1", 7, [digest])
    assert "node-1" in run("residency")
    assert run("peers").strip() == "nothing"


def test_files_are_looked_after_when_told_to(
    store: Store, run: Run, tmp_path: pathlib.Path
) -> None:
    digest = publish(store, "kept")
    assert run("verify").endswith(" 0 damaged\n")
    assert run("retention", "--dry-run") == "0 cards, 0 datasets\n"
    assert run("gc") == "0 files, 0 kB\n"
    assert "the log begins after" in run("compact", "--keep", "1")
    assert "negative" in run("compact", "--keep", "-1", fails=1)
    folder = tmp_path / "backup"
    assert run("backup", str(folder)).startswith("backed up: ")
    assert "move that folder away" in run("restore", str(folder), fails=1)
    blob = store.root / "card_store" / "blobs" / digest
    blob.chmod(0o644)
    blob.write_bytes(b"!" + blob.read_bytes()[1:])
    assert digest in run("verify", fails=1)
    # What is damaged here was not when it was backed up.
    assert "0 files" in run("backup", str(folder))
