"""Signatures of cards: the encoding by the specification, and everything that must not pass."""

from __future__ import annotations

import base64
import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from shared import errors
from shared.cards import keyring as keyrings
from shared.cards import signature

STATEMENT = signature.Statement("tiny", "1.0.0", "a" * 64, "f" * 64)


@dataclasses.dataclass(frozen=True)
class Card:
    name: str = STATEMENT.name
    version: str = STATEMENT.version
    digest: str = STATEMENT.digest
    base_fingerprint: str = STATEMENT.base_fingerprint
    signature_json: str = ""


@pytest.fixture
def signer(tmp_path: pathlib.Path) -> signature.Signer:
    return signature.Signer.load_or_make(tmp_path / "keys" / "trainer.pem")


@pytest.fixture
def keyring(tmp_path: pathlib.Path, signer: signature.Signer) -> keyrings.Keyring:
    signer.publish(tmp_path / "keyring")
    return keyrings.Keyring(tmp_path / "keyring")


def test_encodes_as_the_specification_says_when_given_its_example() -> None:
    encoded = signature.pre_authentication_encoding("http://example.com/HelloWorld", b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    # Lengths count bytes, not characters.
    assert signature.pre_authentication_encoding("é", b"") == b"DSSEv1 2 \xc3\xa9 0 "


def test_returns_the_signer_when_the_signature_holds(
    signer: signature.Signer, keyring: keyrings.Keyring
) -> None:
    envelope = signer.sign(STATEMENT)
    assert signature.verify(envelope, STATEMENT, keyring) == signer.key_id
    assert signer.sign(STATEMENT) == envelope
    assert len(signer.key_id) == 32
    assert json.loads(base64.b64decode(json.loads(envelope)["payload"])) == {
        "name": "tiny",
        "version": "1.0.0",
        "digest": "a" * 64,
        "base_fingerprint": "f" * 64,
    }


def test_accepts_both_alphabets_of_base64_when_verifying(
    signer: signature.Signer, keyring: keyrings.Keyring
) -> None:
    envelope = json.loads(signer.sign(STATEMENT))
    for part in (envelope, envelope["signatures"][0]):
        field = "payload" if "payload" in part else "sig"
        part[field] = base64.urlsafe_b64encode(base64.b64decode(part[field])).decode()
    assert signature.verify(json.dumps(envelope), STATEMENT, keyring) == signer.key_id


@pytest.mark.parametrize("field", ["name", "version", "digest", "base_fingerprint"])
def test_names_the_field_when_the_signature_is_for_another_card(
    signer: signature.Signer, keyring: keyrings.Keyring, field: str
) -> None:
    other = dataclasses.replace(STATEMENT, **{field: "0" * 64})
    with pytest.raises(errors.UntrustedError, match=f"another card: {field} is"):
        signature.verify(signer.sign(STATEMENT), other, keyring)


def test_refuses_when_the_signer_is_unknown(
    tmp_path: pathlib.Path, keyring: keyrings.Keyring
) -> None:
    stranger = signature.Signer.load_or_make(tmp_path / "stranger.pem")
    with pytest.raises(errors.UntrustedError, match=f"{stranger.key_id}.*put that signer's"):
        signature.verify(stranger.sign(STATEMENT), STATEMENT, keyring)


def test_refuses_when_a_stranger_signs_under_a_trusted_id(
    tmp_path: pathlib.Path, signer: signature.Signer, keyring: keyrings.Keyring
) -> None:
    envelope = json.loads(signature.Signer.load_or_make(tmp_path / "stranger.pem").sign(STATEMENT))
    envelope["signatures"][0]["keyid"] = signer.key_id
    with pytest.raises(errors.UntrustedError, match="does not match"):
        signature.verify(json.dumps(envelope), STATEMENT, keyring)


def test_refuses_when_the_payload_was_changed(
    signer: signature.Signer, keyring: keyrings.Keyring
) -> None:
    other = dataclasses.replace(STATEMENT, digest="b" * 64)
    envelope = json.loads(signer.sign(STATEMENT))
    envelope["payload"] = json.loads(signer.sign(other))["payload"]
    with pytest.raises(errors.UntrustedError, match="does not match"):
        signature.verify(json.dumps(envelope), other, keyring)


def test_refuses_when_nobody_signed(keyring: keyrings.Keyring) -> None:
    with pytest.raises(errors.UntrustedError, match="is not signed"):
        signature.verify("", STATEMENT, keyring)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda envelope: envelope.update(payload="!"), "payload is not base64"),
        (lambda envelope: envelope.update(payloadType="text/plain"), "payloadType is"),
        (lambda envelope: envelope.update(signatures=[]), "signatures"),
        (lambda envelope: envelope["signatures"][0].update(sig="!"), "sig is not base64"),
        (lambda envelope: envelope.update(signatures="all"), "signatures"),
        (lambda envelope: envelope.pop("payload"), "payload"),
        (lambda envelope: envelope.update(payload="A" * signature.MOST_BYTES), "more than"),
        (lambda envelope: envelope.update(signatures=envelope["signatures"] * 17), "at most 16"),
    ],
)
def test_names_what_is_wrong_when_the_envelope_is_malformed(
    signer: signature.Signer,
    keyring: keyrings.Keyring,
    change: Callable[[Any], object],
    reason: str,
) -> None:
    envelope = json.loads(signer.sign(STATEMENT))
    change(envelope)
    with pytest.raises(errors.UntrustedError, match=reason):
        signature.verify(json.dumps(envelope), STATEMENT, keyring)


def test_refuses_when_the_envelope_is_not_json(keyring: keyrings.Keyring) -> None:
    for text in ("{", "[]", "\ud800", '"' + "a" * 20_000):
        with pytest.raises(errors.UntrustedError, match="no DSSE envelope"):
            signature.verify(text, STATEMENT, keyring)


def test_refuses_when_the_payload_has_other_fields(
    signer: signature.Signer, keyring: keyrings.Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signature.Statement, "to_bytes", lambda self: b'{"name":"tiny"}')
    with pytest.raises(errors.UntrustedError, match="must have exactly"):
        signature.verify(signer.sign(STATEMENT), STATEMENT, keyring)


def test_passes_when_one_of_several_signers_is_trusted(
    tmp_path: pathlib.Path, signer: signature.Signer, keyring: keyrings.Keyring
) -> None:
    envelope = json.loads(signature.Signer.load_or_make(tmp_path / "stranger.pem").sign(STATEMENT))
    envelope["signatures"] += json.loads(signer.sign(STATEMENT))["signatures"]
    assert signature.verify(json.dumps(envelope), STATEMENT, keyring) == signer.key_id


def test_refuses_when_the_key_is_revoked(
    tmp_path: pathlib.Path, signer: signature.Signer, keyring: keyrings.Keyring
) -> None:
    envelope = signer.sign(STATEMENT)
    assert signature.verify(envelope, STATEMENT, keyring)
    keyring.revoke([signer.key_id])
    with pytest.raises(errors.UntrustedError, match="is revoked"):
        signature.verify(envelope, STATEMENT, keyring)
    another_process = keyrings.Keyring(tmp_path / "keyring")
    assert signature.verify(envelope, STATEMENT, another_process)
    (tmp_path / "keyring" / f"{signer.key_id}.revoked").touch()
    with pytest.raises(errors.UntrustedError, match="is revoked"):
        signature.verify(envelope, STATEMENT, another_process)


def test_reads_the_folder_again_when_keys_come_and_go(
    tmp_path: pathlib.Path, signer: signature.Signer
) -> None:
    keyring = keyrings.Keyring(tmp_path / "later")
    envelope = signer.sign(STATEMENT)
    with pytest.raises(errors.UntrustedError):
        signature.verify(envelope, STATEMENT, keyring)
    path = signer.publish(tmp_path / "later")
    assert signature.verify(envelope, STATEMENT, keyring)
    path.unlink()
    with pytest.raises(errors.UntrustedError):
        signature.verify(envelope, STATEMENT, keyring)


def test_passes_over_files_that_are_no_keys_when_reading_the_folder(
    tmp_path: pathlib.Path, signer: signature.Signer, keyring: keyrings.Keyring
) -> None:
    (tmp_path / "keyring" / "a.pem").write_text("not a key")
    (tmp_path / "keyring" / "notes.txt").write_text("not a key")
    (tmp_path / "keyring" / "folder.pem").mkdir()
    assert signature.verify(signer.sign(STATEMENT), STATEMENT, keyring) == signer.key_id


def test_has_the_same_key_when_loaded_again(
    tmp_path: pathlib.Path, signer: signature.Signer
) -> None:
    path = tmp_path / "keys" / "trainer.pem"
    assert signature.Signer.load_or_make(path).key_id == signer.key_id
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(errors.ConfigError, match="chmod 600"):
        signature.Signer.load_or_make(path)


def test_names_the_file_when_it_holds_no_key(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "trainer.pem"
    path.write_text("nothing")
    path.chmod(0o600)
    with pytest.raises(errors.ConfigError, match=r"trainer\.pem"):
        signature.Signer.load_or_make(path)


def test_lets_unsigned_cards_pass_when_signatures_are_not_required(
    tmp_path: pathlib.Path, signer: signature.Signer, keyring: keyrings.Keyring
) -> None:
    trust = signature.Trust(keyring, required=False)
    assert trust.verify(Card()) == ""
    assert trust.verify(Card(signature_json=signer.sign(STATEMENT))) == signer.key_id
    stranger = signature.Signer.load_or_make(tmp_path / "stranger.pem")
    with pytest.raises(errors.UntrustedError):
        trust.verify(Card(signature_json=stranger.sign(STATEMENT)))
    with pytest.raises(errors.UntrustedError, match="is not signed"):
        signature.Trust(keyring).verify(Card())


def test_refuses_when_any_bit_of_payload_or_signature_is_another(
    signer: signature.Signer, keyring: keyrings.Keyring
) -> None:
    right = json.loads(signer.sign(STATEMENT))
    payload = base64.b64decode(right["payload"])
    proof = base64.b64decode(right["signatures"][0]["sig"])

    def flipped(data: bytes, bit: int) -> str:
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        return base64.b64encode(bytes(changed)).decode()

    for bit in range(len(payload) * 8):
        with pytest.raises(errors.UntrustedError):
            signature.verify(
                json.dumps(right | {"payload": flipped(payload, bit)}), STATEMENT, keyring
            )
    for bit in range(len(proof) * 8):
        changed = right["signatures"][0] | {"sig": flipped(proof, bit)}
        with pytest.raises(errors.UntrustedError):
            signature.verify(json.dumps(right | {"signatures": [changed]}), STATEMENT, keyring)


def test_refuses_when_the_key_signed_the_same_bytes_as_another_type(
    signer: signature.Signer, keyring: keyrings.Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(signature, "PAYLOAD_TYPE", "application/vnd.other+json")
        envelope = signer.sign(STATEMENT)
    with pytest.raises(errors.UntrustedError, match="payloadType is"):
        signature.verify(envelope, STATEMENT, keyring)
    relabelled = json.dumps(json.loads(envelope) | {"payloadType": signature.PAYLOAD_TYPE})
    with pytest.raises(errors.UntrustedError, match="does not match"):
        signature.verify(relabelled, STATEMENT, keyring)


def test_other_keys_are_trusted_when_a_file_goes_while_the_folder_is_read(
    tmp_path: pathlib.Path, signer: signature.Signer, keyring: keyrings.Keyring
) -> None:
    # What a temporary file looks like that was renamed after the folder was listed.
    (tmp_path / "keyring" / "gone.pem").symlink_to(tmp_path / "nowhere")
    assert signature.verify(signer.sign(STATEMENT), STATEMENT, keyring) == signer.key_id
