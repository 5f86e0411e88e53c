"""What Flight clients may say to a data plane, checked: upload commands and tickets.

Small JSON objects; see `shared.flight.client` for the other side.
"""

from __future__ import annotations

import json
from typing import Annotated, TypeVar

import pydantic

from shared import errors
from shared.cards import manifest as manifests

LARGEST_MESSAGE_BYTES = 4096


class Message(pydantic.BaseModel):
    """Frozen and strict; a key that it does not know is an error."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True)


class Upload(Message):
    """Announces an upload: the whole of it must match."""

    digest: manifests.Sha256
    size_bytes: Annotated[int, pydantic.Field(ge=1)]
    batches: Annotated[int, pydantic.Field(ge=1)]


class GetTicket(Message):
    """Names a file."""

    digest: manifests.Sha256
    raw: bool = False
    """The file's own bytes in chunks; otherwise the table that it holds."""


_M = TypeVar("_M", bound=Message)
_U = TypeVar("_U", bound=Upload)
UPLOAD_EXAMPLE: dict[str, object] = {"digest": "SHA-256", "size_bytes": 1, "batches": 1}


def parse_upload(
    model: type[_U], command: bytes | None, largest_bytes: int, key: str, example: dict[str, object]
) -> _U:
    """Reads the command of an upload.

    Args:
        model: what it must be.
        command: of the Flight descriptor; None where it has a path instead.
        largest_bytes: more than this is refused before a byte is read.
        key: of config.yaml, that says so.
        example: of the model's own fields, for the message.

    Raises:
        errors.InvalidInputError: names what is wrong.
    """
    what = "an upload's descriptor command"
    put = parse(model, command or b"", what, example | UPLOAD_EXAMPLE)
    if put.size_bytes > largest_bytes:
        raise errors.InvalidInputError(
            f"upload {put.digest}: {put.size_bytes} bytes are more than the {largest_bytes} that "
            f"{key} allows"
        )
    return put


def parse_get(ticket: bytes) -> GetTicket:
    """Reads a ticket.

    Raises:
        errors.InvalidInputError: names what is wrong.
    """
    return parse(GetTicket, ticket, "a ticket", {"digest": "SHA-256", "raw": False})


def parse(model: type[_M], text: bytes, what: str, example: dict[str, object]) -> _M:
    """Reads one message.

    Args:
        model: what it must be.
        text: JSON, of nobody trusted.
        what: names it in errors.
        example: of a right one.

    Raises:
        errors.InvalidInputError: names what is wrong.
    """
    expected = f"expected JSON such as {json.dumps(example)}"
    if len(text) > LARGEST_MESSAGE_BYTES:
        raise errors.InvalidInputError(f"{what} has {len(text)} bytes; {expected}")
    try:
        return model.model_validate_json(text)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise errors.InvalidInputError(
            f"{what} is wrong{' at ' + field if field else ''}: {first['msg']}; {expected}"
        ) from error
