"""What Flight clients may say to the data plane, checked: upload commands and tickets.

Beside what `shared.flight.commands` knows; see `shared.flight.client` for the other side.
"""

from __future__ import annotations

import json
from typing import Literal

from services.card_store import records
from shared import errors
from shared.flight import commands


class PutCommand(commands.Upload):
    """Announces an upload to the card store."""

    kind: Literal["card", "dataset", "samples", "snapshot"]


def parse_put(command: bytes | None, largest_upload_bytes: int) -> PutCommand:
    """Reads the command of an upload.

    Args:
        command: of the Flight descriptor; None where it has a path instead.
        largest_upload_bytes: more than this is refused before a byte is read.

    Raises:
        errors.InvalidInputError: names what is wrong.
    """
    key = "card_store.largest_upload_bytes"
    return commands.parse_upload(PutCommand, command, largest_upload_bytes, key, {"kind": "card"})


def table_ticket(digest: str) -> bytes:
    """The ticket of a file's table."""
    return json.dumps({"digest": digest}).encode()


def listing_command(card: records.CardRecord) -> bytes:
    """The descriptor command under which a card is listed."""
    return json.dumps(
        {
            "name": card.name,
            "digest": card.digest,
            "version": card.version,
            "domain": card.domain,
            "size_bytes": card.size_bytes,
            "base_fingerprint": card.base_fingerprint,
        }
    ).encode()


def reference_of(command: bytes | None, path: list[bytes] | None) -> str:
    """The card that a descriptor asks about: a path of one reference, or a listed command.

    Raises:
        errors.InvalidInputError: it is neither.
    """
    try:
        if path and len(path) == 1:
            return path[0].decode()
        if len(command or b"") > commands.LARGEST_MESSAGE_BYTES:
            raise ValueError("too long")
        digest = json.loads(command or b"")["digest"]
        if isinstance(digest, str):
            return digest
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise errors.InvalidInputError(
        "a descriptor must have the path [name], [name@alias] or [name@digest], or a command as "
        f"list_flights gives it; got {(command or path)!r:.200}"
    )
