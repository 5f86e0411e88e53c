"""What Flight clients may say to the data plane, checked: upload commands and tickets.

Both are small JSON objects; see `shared.flight.client` for the other side.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal, TypeVar

import pydantic

from services.card_store import records
from shared import errors
from shared.cards import manifest as manifests

_LARGEST_MESSAGE_BYTES = 4096


class _Message(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True)


class PutCommand(_Message):
    """Announces an upload: the whole of it must match."""

    kind: Literal["card", "dataset", "samples", "snapshot"]
    digest: manifests.Sha256
    size_bytes: Annotated[int, pydantic.Field(ge=1)]
    batches: Annotated[int, pydantic.Field(ge=1)]


class GetTicket(_Message):
    """Names a committed file."""

    digest: manifests.Sha256
    raw: bool = False
    """The file's own bytes in chunks; otherwise the table that it holds."""


_M = TypeVar("_M", bound=_Message)


def parse_put(command: bytes | None, largest_upload_bytes: int) -> PutCommand:
    """Reads the command of an upload.

    Args:
        command: of the Flight descriptor; None where it has a path instead.
        largest_upload_bytes: more than this is refused before a byte is read.

    Raises:
        errors.InvalidInputError: names what is wrong.
    """
    example = {"kind": "card", "digest": "SHA-256", "size_bytes": 1, "batches": 1}
    put = _parse(PutCommand, command or b"", "an upload's descriptor command", example)
    if put.size_bytes > largest_upload_bytes:
        raise errors.InvalidInputError(
            f"upload {put.digest}: {put.size_bytes} bytes are more than the "
            f"{largest_upload_bytes} that card_store.largest_upload_bytes allows"
        )
    return put


def parse_get(ticket: bytes) -> GetTicket:
    """Reads a ticket.

    Raises:
        errors.InvalidInputError: names what is wrong.
    """
    return _parse(GetTicket, ticket, "a ticket", {"digest": "SHA-256", "raw": False})


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
        if len(command or b"") > _LARGEST_MESSAGE_BYTES:
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


def _parse(model: type[_M], text: bytes, what: str, example: dict[str, object]) -> _M:
    expected = f"expected JSON such as {json.dumps(example)}"
    if len(text) > _LARGEST_MESSAGE_BYTES:
        raise errors.InvalidInputError(f"{what} has {len(text)} bytes; {expected}")
    try:
        return model.model_validate_json(text)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise errors.InvalidInputError(
            f"{what} is wrong{' at ' + field if field else ''}: {first['msg']}; {expected}"
        ) from error
