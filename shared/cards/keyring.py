"""Whose signatures count: a folder of public keys, and the keys that were revoked.

Knows nothing about envelopes and cards; `signature` does.
"""

from __future__ import annotations

import hashlib
import os
import pathlib

import structlog
from cryptography import exceptions as crypto_exceptions
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

_KEY_ID_CHARACTERS = 32
_REVOKED = ".revoked"
_log = structlog.get_logger(__name__)


class Keyring:
    """The public keys of a folder's `*.pem` files; a changed folder is read again.

    A file `KEYID.revoked` beside them says that a key is not to be trusted any more, whoever puts
    its `.pem` back.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        """Takes the folder, which may come later."""
        self._folder = folder
        self._seen: object = None
        self._keys: dict[str, ed25519.Ed25519PublicKey] = {}
        self._revoked_files: set[str] = set()
        self._revoked: set[str] = set()

    @property
    def folder(self) -> pathlib.Path:
        """Where the keys lie."""
        return self._folder

    def revoke(self, key: str) -> None:
        """Trusts a key no more, as long as this process runs."""
        self._revoked.add(key)

    def find(self, key: str) -> ed25519.Ed25519PublicKey | None:
        """The trusted key of an id."""
        self._refresh()
        return None if self.is_revoked(key) else self._keys.get(key)

    def is_revoked(self, key: str) -> bool:
        """Whether a key was revoked here."""
        return key in self._revoked or key in self._revoked_files

    def _refresh(self) -> None:
        found = []
        try:
            for entry in os.scandir(self._folder):
                status = entry.stat()
                found.append((entry.name, status.st_mtime_ns, status.st_size, status.st_ino))
        except FileNotFoundError:
            found = []
        except OSError as error:
            # Closed, not as it was: a key may have been taken out.
            _log.error("keyring can't be read; no card is trusted", reason=str(error))
            found = []
        if self._seen == sorted(found):
            return
        names = [name for name, *_ in found]
        self._keys = dict(filter(None, map(self._read, sorted(names))))
        self._revoked_files = {
            name.removesuffix(_REVOKED) for name in names if name.endswith(_REVOKED)
        }
        self._seen = sorted(found)

    def _read(self, name: str) -> tuple[str, ed25519.Ed25519PublicKey] | None:
        if not name.endswith(".pem") or name.startswith("."):
            return None
        try:
            key = serialization.load_pem_public_key((self._folder / name).read_bytes())
        except (OSError, ValueError, crypto_exceptions.UnsupportedAlgorithm) as error:
            _log.warning("file of the keyring passed over", file=name, reason=str(error))
            return None
        if not isinstance(key, ed25519.Ed25519PublicKey):
            _log.warning("file of the keyring passed over", file=name, reason="not Ed25519")
            return None
        return key_id(key), key


def key_id(key: ed25519.Ed25519PublicKey) -> str:
    """The first 32 hex digits of the SHA-256 of the raw public key."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:_KEY_ID_CHARACTERS]


def public_pem(key: ed25519.Ed25519PublicKey) -> bytes:
    """The file of a public key."""
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
