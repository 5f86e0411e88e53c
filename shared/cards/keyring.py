"""Whose signatures count: a folder of public keys, and the keys that were revoked.

Knows nothing about envelopes and cards; `signature` does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import re
from collections.abc import Iterable

import structlog
from cryptography import exceptions as crypto_exceptions
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

_KEY_ID_CHARACTERS = 32
_REVOKED = ".revoked"
_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True)
class _Content:
    """What was found in the folder."""

    files: list[tuple[str, int, int, int]] = dataclasses.field(default_factory=list)
    keys: dict[str, ed25519.Ed25519PublicKey] = dataclasses.field(default_factory=dict)
    revoked: frozenset[str] = frozenset()


class Keyring:
    """The public keys of a folder's `*.pem` files; a changed folder is read again.

    A file `KEYID.revoked` beside them says that a key is not to be trusted any more, whoever puts
    its `.pem` back.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        """Takes the folder, which may come later."""
        self._folder = folder
        self._content = _Content()
        self._revoked: set[str] = set()

    @property
    def folder(self) -> pathlib.Path:
        """Where the keys lie."""
        return self._folder

    def revoke(self, keys: Iterable[str]) -> None:
        """Trusts some keys no more, as long as this process runs."""
        self._revoked.update(keys)

    def find(self, key: str) -> ed25519.Ed25519PublicKey | None:
        """The trusted key of an id."""
        content = self._refreshed()
        is_revoked = key in self._revoked or key in content.revoked
        return None if is_revoked else content.keys.get(key)

    def is_revoked(self, key: str) -> bool:
        """Whether a key was revoked here."""
        return key in self._revoked or key in self._refreshed().revoked

    def _refreshed(self) -> _Content:
        files = self._files()
        if self._content.files != files:
            names = [name for name, *_ in files]
            keys = dict(filter(None, map(self._key, names)))
            revoked = {name.removesuffix(_REVOKED) for name in names if name.endswith(_REVOKED)}
            # At one stroke: cards are looked at in several threads.
            self._content = _Content(files, keys, frozenset(revoked))
        return self._content

    def _files(self) -> list[tuple[str, int, int, int]]:
        """Name, time, size and number of each file, in order."""
        found = []
        try:
            for entry in os.scandir(self._folder):
                # One that goes meanwhile, as temporary files do, takes no other with it.
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat()
                    found.append((entry.name, status.st_mtime_ns, status.st_size, status.st_ino))
        except FileNotFoundError:
            return []
        except OSError as error:
            # Closed, not as it was: a key may have been taken out.
            _log.error("keyring can't be read; no card is trusted", reason=str(error))
            return []
        return sorted(found)

    def _key(self, name: str) -> tuple[str, ed25519.Ed25519PublicKey] | None:
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


def is_key_id(text: str) -> bool:
    """Whether a text has the form of a key's id."""
    return re.fullmatch(rf"[0-9a-f]{{{_KEY_ID_CHARACTERS}}}", text) is not None


def key_id(key: ed25519.Ed25519PublicKey) -> str:
    """The first 32 hex digits of the SHA-256 of the raw public key."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:_KEY_ID_CHARACTERS]


def public_pem(key: ed25519.Ed25519PublicKey) -> bytes:
    """The file of a public key."""
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
