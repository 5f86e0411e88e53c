"""`skillmesh cards`, `promote`, `rollback`, `revoke`, `export`, `import` at a real card store."""

from __future__ import annotations

import asyncio
import hashlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from shared.cards import format as formats
from shared.cards import peft_layout, signature
from shared.pb import cards_pb2, inference_pb2, inference_pb2_grpc
from shared.rpc import client
from tests import fakes
from tests.contract.card_store_processes import Store, card_bytes
from tests.contract.command_runs import Commands, documented
from tests.contract.served_apart import served


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store that takes signed cards alone."""
    opened = Store(tmp_path_factory.mktemp("strict"), security={"require_signatures": True})
    yield opened
    opened.stop()


@pytest.fixture
def commands(store: Store, monkeypatch: pytest.MonkeyPatch) -> Commands:
    found = Commands(monkeypatch, store.root)
    found.set("CARD_STORE__ADDRESS", store.control_address)
    found.set("SECURITY__REQUIRE_SIGNATURES", "false")
    return found


def publish(store: Store, name: str, version: str = "1.0.0", seed: int = 0) -> str:
    data = card_bytes(name, version, seed)
    asyncio.run(store.publish(data))
    return hashlib.sha256(data).hexdigest()


def test_cards_are_listed_for_programs_and_people(store: Store, commands: Commands) -> None:
    digest = publish(store, "listed")
    [card] = [card for card in commands.json("cards") if card["name"] == "listed"]
    assert set(card) == documented("cards")
    assert (card["digest"], card["aliases"], card["state"]) == (digest, ["latest"], "ACTIVE")
    assert digest[:12] in commands.run("cards")


def test_card_is_shown_with_versions_aliases_and_nodes(store: Store, commands: Commands) -> None:
    old, new = publish(store, "shown", "1.0.0"), publish(store, "shown", "1.1.0", 1)

    async def report() -> None:
        async with store.stub() as stub:
            request = cards_pb2.ReportResidencyRequest(node_id="node-1", revision=3, digests=[old])
            await client.call(stub.ReportResidency, request)

    asyncio.run(report())
    told = commands.json("cards", "show", "shown")
    assert set(told) == documented("cards", "show")
    assert told["digest"] == new and [one["digest"] for one in told["versions"]] == [new, old]
    assert [move["digest"] for move in told["moves"]["latest"]] == [new, old]
    assert told["nodes"] == [{"node_id": "node-1", "address": "", "revision": 3, "holds": [old]}]
    assert (told["signers"], told["lineage"], told["gate"]) == ([], None, [])
    for reference in (old, f"shown@{old}", f"shown@{old[:8]}", old[:8]):
        assert commands.json("cards", "show", reference)["version"] == "1.0.0"
    printed = commands.run("cards", "show", "shown")
    for wanted in ("shown 1.1.0", "signed by", "nobody", old[:12], "node node-1"):
        assert wanted in printed


def test_alias_moves_when_promoted_and_rolled_back(store: Store, commands: Commands) -> None:
    old, new = publish(store, "moved", "1.0.0"), publish(store, "moved", "1.1.0", 1)
    promoted = commands.json("promote", "moved", old[:10])
    assert set(promoted) == documented("cards") and promoted["digest"] == old
    assert commands.run("rollback", "moved").split() == ["moved@latest", "is", "1.1.0,", new]
    assert old in commands.run("promote", "moved", old, "--alias", "production")
    assert commands.json("promote", "moved", new, "--alias", "production")["digest"] == new
    assert commands.json("rollback", "moved", "--alias", "production")["digest"] == old
    assert "error: " in commands.run("promote", "moved", "0" * 64, code=1)
    assert "error: " in commands.run("rollback", "nobody", code=1)


def test_card_is_revoked_only_when_that_is_meant(store: Store, commands: Commands) -> None:
    digest = publish(store, "leaked")
    assert "--yes" in commands.run("revoke", "leaked", code=2)
    told = commands.json("revoke", f"leaked@{digest}", "--yes", "--reason", "leaked")
    assert told == {"name": "leaked", "digest": digest, "revoked": [digest]}
    assert set(told) == documented("revoke")
    assert commands.json("cards", "show", digest)["state"] == "REVOKED"
    again = publish(store, "leaked", "1.1.0", 1)
    assert f"revoked {again}" in commands.run("revoke", "leaked", "--yes")


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "[red]x[/red]", "a b", "x@", "ü", "'; drop", "$(id)", "x" * 300]
)
def test_odd_names_are_refused_with_a_message(commands: Commands, name: str) -> None:
    for command in (("cards", "show", name), ("revoke", name, "--yes"), ("rollback", name)):
        assert commands.run(*command, code=1).startswith("error: ")
    assert "name of a card is missing" in commands.run("cards", "show", " ", code=2)


def test_card_is_exported_as_file_and_peft_directory(
    store: Store, commands: Commands, tmp_path: pathlib.Path
) -> None:
    digest = publish(store, "taken")
    told = commands.json("export", "taken", str(tmp_path / "both"))
    assert set(told) == documented("export") and told["digest"] == digest
    assert sorted(path.name for path in (tmp_path / "both").iterdir()) == sorted(told["files"])
    [file] = (tmp_path / "both").glob("*.lora.arrow")
    assert hashlib.sha256(file.read_bytes()).hexdigest() == digest
    card = formats.LoRAFormat.load(file)
    adapter = peft_layout.read(tmp_path / "both")
    assert set(adapter.modules) == set(card.modules)
    commands.run("export", "taken", str(tmp_path / "card"), "--as", "card")
    assert [path.name for path in (tmp_path / "card").iterdir()] == [file.name]
    commands.run("export", f"taken@{digest[:9]}", str(tmp_path / "peft"), "--as", "peft")
    assert len(list((tmp_path / "peft").iterdir())) == 2
    commands.run("export", "taken", str(tmp_path / "x"), "--as", "zip", code=2)
    (tmp_path / "file").write_text("in the way")
    assert "folder" in commands.run("export", "taken", str(tmp_path / "file"), code=2)
    assert "error: " in commands.run("export", "nowhere", str(tmp_path / "y"), code=1)


def test_data_plane_that_sends_something_else_is_found_out(
    store: Store, commands: Commands, tmp_path: pathlib.Path
) -> None:
    digest = publish(store, "damaged")
    blob = store.root / "card_store" / "blobs" / digest
    blob.chmod(0o644)
    blob.write_bytes(b"!" + blob.read_bytes()[1:])
    assert "SHA-256" in commands.run("export", "damaged", str(tmp_path / "out"), code=1)
    assert not (tmp_path / "out").exists()
    # For the tests behind this one, which list the files.
    blob.write_bytes(card_bytes("damaged"))


def test_file_is_published_when_imported_again(
    store: Store, commands: Commands, tmp_path: pathlib.Path
) -> None:
    data = card_bytes("carried")
    file = tmp_path / "carried.lora.arrow"
    file.write_bytes(data)
    told = commands.json("import", str(file))
    assert set(told) == documented("import")
    assert (told["name"], told["signer"]) == ("carried", "")
    assert told["digest"] == hashlib.sha256(data).hexdigest()
    assert "carried@" in commands.run("import", str(tmp_path))
    assert commands.run("import", str(file), "--name", "other", code=2)
    for path in (tmp_path / "nothing", tmp_path.parent / "[odd] name"):
        assert "there is no such" in commands.run("import", str(path), code=2)
    (tmp_path / "second.lora.arrow").write_bytes(data)
    assert "holds 2 cards" in commands.run("import", str(tmp_path), code=2)
    file.write_bytes(data[:-100])
    assert "error: " in commands.run("import", str(file), code=1)


class Node(inference_pb2_grpc.InferenceServicer):
    """A node of the base model that the tests' cards belong to."""

    base_model = "embedded"

    async def GetNodeStatus(
        self, request: inference_pb2.GetNodeStatusRequest, context: Any
    ) -> inference_pb2.NodeStatus:
        return inference_pb2.NodeStatus(
            base_model=self.base_model, base_fingerprint=fakes.FINGERPRINT
        )


def test_peft_directory_becomes_a_card_of_the_clusters_base_model(
    store: Store, commands: Commands, tmp_path: pathlib.Path
) -> None:
    publish(store, "source")
    folder = tmp_path / "My Adapter"
    commands.run("export", "source", str(folder), "--as", "peft")
    node = Node()  # type: ignore[abstract]

    def add(server: Any) -> str:
        inference_pb2_grpc.add_InferenceServicer_to_server(node, server)
        return inference_pb2.DESCRIPTOR.services_by_name["Inference"].full_name

    with served(add) as port:
        commands.set("INFERENCE__ADDRESS", f"127.0.0.1:{port}")
        told = commands.json("import", str(folder))
        assert (told["name"], told["version"]) == ("my-adapter", "0.1.0")
        assert told["base_fingerprint"] == fakes.FINGERPRINT
        told = commands.json("import", str(folder), "--name", "mine", "--version", "2.0.0")
        assert (told["name"], told["version"]) == ("mine", "2.0.0")
        node.base_model = "another/model"
        assert "was made for embedded" in commands.run("import", str(folder), code=1)


def test_unsigned_card_needs_somebody_who_vouches_for_it_when_signatures_are_required(
    strict: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    commands = Commands(monkeypatch, strict.root)
    commands.set("CARD_STORE__ADDRESS", strict.control_address)
    file = tmp_path / "vouched.lora.arrow"
    card = fakes.tiny_card("vouched")
    digest = formats.LoRAFormat.save(card, file)
    assert "--sign vouches for it" in commands.run("import", str(file), code=1)
    assert "no key" in commands.run("import", str(file), "--sign", code=1)
    beside = tmp_path / "vouched.lora.arrow.dsse.json"
    beside.write_text(fakes.envelope(card, digest, fakes.signer(7)))
    assert "whom the keyring" in commands.run("import", str(file), code=1)
    beside.write_text("{}")
    assert "no DSSE envelope" in commands.run("import", str(file), code=1)
    assert commands.json("cards") == []
    beside.write_text(fakes.envelope(card, digest))
    assert commands.json("import", str(file))["signer"] == fakes.signer().key_id
    # The signature goes out with the card, and is good for another cluster.
    told = commands.json("export", "vouched", str(tmp_path / "out"), "--as", "card")
    assert told["signers"] == [fakes.signer().key_id]
    taken = tmp_path / "out" / "vouched-1.0.0.lora.arrow.dsse.json"
    assert json.loads(taken.read_text())["signatures"]
    assert commands.json("import", str(tmp_path / "out"))["digest"] == digest


def test_card_is_signed_with_the_trainers_key_when_that_is_asked_for(
    strict: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    commands = Commands(monkeypatch, strict.root)
    commands.set("CARD_STORE__ADDRESS", strict.control_address)
    key = tmp_path / "trainer.pem"
    signer = signature.Signer.load_or_make(key)
    commands.set("SECURITY__SIGNING_KEY", str(key))
    file = tmp_path / "signed.lora.arrow"
    formats.LoRAFormat.save(fakes.tiny_card("signed"), file)
    assert signer.key_id in commands.run("import", str(file), "--sign", code=1)
    signer.publish(strict.root / "keyring")
    assert f"signed by {signer.key_id}" in commands.run("import", str(file), "--sign")
