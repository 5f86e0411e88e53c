"""Who vouches for a card: Ed25519 signatures in DSSE envelopes.

The trainer signs what makes a card the card that it is: name, version, digest of the file, and
base model. The store looks at the signature before it publishes, every node and the router look
again before they use a card. Knows nothing about files of cards, stores or services.

Envelope: https://github.com/secure-systems-lab/dsse, version 1.0.2.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable
from typing import Annotated, Any, Protocol, TypeVar

import pydantic
from cryptography import exceptions as crypto_exceptions
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from shared import atomic, errors
from shared import settings as config
from shared.cards import keyring as keyrings

PAYLOAD_TYPE = "application/vnd.skillmesh.card+json"
MOST_BYTES = 16 * 1024
"""Bytes of an envelope; one signature makes some 500."""
_MOST_SIGNATURES = 16
_OWNER_ONLY = 0o600


@dataclasses.dataclass(frozen=True)
class Statement:
    """What a signature vouches for."""

    name: str
    version: str
    digest: str
    """SHA-256 of the card's file."""
    base_fingerprint: str

    def to_bytes(self) -> bytes:
        """The signed payload; equal statements give equal bytes."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"), sort_keys=True).encode()


class SignedCard(Protocol):
    """A card on record, in the store's words or in a node's."""

    @property
    def name(self) -> str:
        """The card's name."""

    @property
    def version(self) -> str:
        """Its semantic version."""

    @property
    def digest(self) -> str:
        """SHA-256 of its file."""

    @property
    def base_fingerprint(self) -> str:
        """The base model that it belongs to."""

    @property
    def signature_json(self) -> str:
        """Its DSSE envelope; empty where it is not signed."""


C = TypeVar("C", bound=SignedCard)


class Signer:
    """Holds one private key."""

    def __init__(self, key: ed25519.Ed25519PrivateKey) -> None:
        """Takes the key."""
        self._key = key
        self.key_id = keyrings.key_id(key.public_key())
        """Names the key in envelopes, keyrings and revocations."""

    @classmethod
    def load_or_make(cls, path: pathlib.Path) -> Signer:
        """The signer of a key file (PKCS #8 in PEM), which is made where it is missing.

        Raises:
            errors.ConfigError: the file holds no Ed25519 key, or is open to other users.
        """
        try:
            if not path.exists():
                key = ed25519.Ed25519PrivateKey.generate()
                # The temporary file is made for its owner alone, and renamed as it is.
                atomic.write(path, _private_pem(key))
                path.chmod(_OWNER_ONLY)
            status = path.stat()
            # A secret that is mounted belongs to somebody else, and is read by way of its group.
            others = 0o077 if status.st_uid == os.geteuid() else 0o037
            if status.st_mode & others:
                raise errors.ConfigError(
                    f"security.signing_key: {path} is open to other users; run chmod 600 on it, "
                    "and revoke the key if somebody may have read it"
                )
            loaded = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise errors.ConfigError(
                f"security.signing_key: {path} can't be used: {error}; name another file, or "
                "remove it to have a new key made"
            ) from error
        if not isinstance(loaded, ed25519.Ed25519PrivateKey):
            raise errors.ConfigError(f"security.signing_key: {path} holds no Ed25519 key")
        return cls(loaded)

    def sign(self, statement: Statement) -> str:
        """The DSSE envelope over a statement, as JSON; equal statements give equal envelopes."""
        payload = statement.to_bytes()
        signature = self._key.sign(pre_authentication_encoding(PAYLOAD_TYPE, payload))
        envelope = {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": self.key_id, "sig": base64.b64encode(signature).decode()}],
        }
        return json.dumps(envelope)

    def public_pem(self) -> bytes:
        """The file of the public half."""
        return keyrings.public_pem(self._key.public_key())

    def publish(self, folder: pathlib.Path) -> pathlib.Path:
        """Puts the public half into a keyring's folder, unless it is there under any name.

        Raises:
            errors.ConfigError: the folder can't be written.
        """
        path = folder / f"{self.key_id}.pem"
        if keyrings.Keyring(folder).find(self.key_id) is not None:
            return path
        try:
            if not path.exists():
                atomic.write(path, self.public_pem())
                path.chmod(0o644)
        except OSError as error:
            raise errors.ConfigError(
                f"security.keyring: can't write {path}: {error}; copy the key there by hand"
            ) from error
        return path


class Trust:
    """Decides whether a card may be published or served."""

    def __init__(self, keyring: keyrings.Keyring, required: bool = True) -> None:
        """Takes the trusted keys, and whether every card must be signed.

        Args:
            keyring: the keys.
            required: where false, unsigned cards pass; a signature that is there must still hold.
        """
        self.keyring = keyring
        self._required = required

    @classmethod
    def configured(cls, settings: config.Settings) -> Trust:
        """As the settings say."""
        keyring = keyrings.Keyring(settings.keyring_path())
        return cls(keyring, settings.security.require_signatures)

    def verify(self, card: SignedCard) -> str:
        """Looks at the signature of a card on record.

        Returns:
            The id of the key that signed it; empty where it is not signed and need not be.

        Raises:
            errors.UntrustedError: says what is wrong with it, and what to do.
        """
        if not card.signature_json and not self._required:
            return ""
        statement = Statement(card.name, card.version, card.digest, card.base_fingerprint)
        return verify(card.signature_json, statement, self.keyring)

    def revoke(self, keys: Iterable[str]) -> None:
        """Trusts some keys no more; see `Keyring.revoke`."""
        self.keyring.revoke(keys)

    def distrusted(self, cards: Iterable[C]) -> list[C]:
        """Those of some cards in use whose signature does not hold any more."""
        return [card for card in cards if not self._holds(card)]

    def _holds(self, card: SignedCard) -> bool:
        try:
            self.verify(card)
        except errors.UntrustedError:
            return False
        return True


def verify(envelope_json: str, expected: Statement, keyring: keyrings.Keyring) -> str:
    """Checks that a trusted key signed the very statement.

    Returns:
        The id of that key.

    Raises:
        errors.UntrustedError: says what is wrong, with which card, and what to do.
    """
    card = f"card {expected.name} {expected.version} ({expected.digest[:12]})"
    if not envelope_json:
        raise errors.UntrustedError(
            f"{card} is not signed; publish it through the trainer, or set "
            "security.require_signatures: false where cards of anybody may be used"
        )
    envelope, payload = _parsed(envelope_json, card)
    signer = _signer(envelope, payload, card, keyring)
    _check_payload(payload, expected, card)
    return signer


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """PAE of DSSE version 1: what is signed, so that no payload passes for one of another type."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


class _Signature(pydantic.BaseModel):
    # DSSE lets envelopes carry fields that a reader does not know.
    model_config = pydantic.ConfigDict(frozen=True, strict=True)

    keyid: str = ""
    sig: str


class _Envelope(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, strict=True)

    payload: str
    payloadType: str
    signatures: Annotated[
        list[_Signature], pydantic.Field(min_length=1, max_length=_MOST_SIGNATURES)
    ]


def _parsed(envelope_json: str, card: str) -> tuple[_Envelope, bytes]:
    if len(envelope_json.encode(errors="replace")) > MOST_BYTES:
        raise _malformed(card, f"it has more than {MOST_BYTES} bytes")
    try:
        envelope = _Envelope.model_validate_json(envelope_json)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise _malformed(card, f"{field + ': ' if field else ''}{first['msg']}") from error
    if envelope.payloadType != PAYLOAD_TYPE:
        raise _malformed(
            card, f"payloadType is {envelope.payloadType[:100]!r}, not {PAYLOAD_TYPE!r}"
        )
    return envelope, _decoded(envelope.payload, card, "payload")


def _decoded(text: str, card: str, field: str) -> bytes:
    try:
        # The specification allows either alphabet.
        standard = text.replace("-", "+").replace("_", "/")
        return base64.b64decode(standard, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _malformed(card, f"{field} is not base64: {error}") from error


def _malformed(card: str, reason: str) -> errors.UntrustedError:
    return errors.UntrustedError(
        f"{card}: its signature is no DSSE envelope of a card: {reason}; sign the card again"
    )


def _signer(envelope: _Envelope, payload: bytes, card: str, keyring: keyrings.Keyring) -> str:
    """The id of the first trusted key whose signature holds."""
    signed = pre_authentication_encoding(envelope.payloadType, payload)
    forged, revoked = [], []
    for signature in envelope.signatures:
        key = keyring.find(signature.keyid)
        if key is None:
            if keyring.is_revoked(signature.keyid):
                revoked.append(signature.keyid)
            continue
        try:
            key.verify(_decoded(signature.sig, card, "sig"), signed)
        except crypto_exceptions.InvalidSignature:
            forged.append(signature.keyid)
        else:
            return signature.keyid
    if forged:
        raise errors.UntrustedError(
            f"{card}: the signature of key {forged[0]} does not match; it was changed after it "
            "was signed, or never signed by that key: fetch it again from where it was made"
        )
    if revoked:
        raise errors.UntrustedError(
            f"{card}: the key {revoked[0]} that signed it is revoked; train the card again"
        )
    names = ", ".join(signature.keyid[:64] for signature in envelope.signatures)
    raise errors.UntrustedError(
        f"{card} is signed by {names or 'nobody'}, whom the keyring {keyring.folder} does not "
        "know; put that signer's public key there if it is to be trusted"
    )


def _check_payload(payload: bytes, expected: Statement, card: str) -> None:
    try:
        said: Any = json.loads(payload)
    except ValueError as error:
        raise _malformed(card, f"payload is not JSON: {error}") from error
    wanted = dataclasses.asdict(expected)
    if not isinstance(said, dict) or said.keys() != wanted.keys():
        raise _malformed(card, f"payload must have exactly {sorted(wanted)}")
    for field, value in wanted.items():
        if said[field] != value:
            raise errors.UntrustedError(
                f"{card}: its signature is for another card: {field} is {str(said[field])[:80]!r} "
                f"there and {value!r} here; fetch card and signature again from where it was made"
            )


def _private_pem(key: ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
