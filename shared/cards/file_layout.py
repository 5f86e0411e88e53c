"""The layout of a card's Arrow IPC file, checked before Arrow follows what the file says.

Arrow unpacks bodies, swaps their bytes and copies metadata as often as a file asks for it: some KB
can cost GBs before anything of them can be refused. So the fields that ask for it are read here
first, straight from the flatbuffers, and only the layout that `LoRAFormat` writes goes on to
Arrow. Knows nothing of weights and allocates nothing; types and buffers are Arrow's to verify.

The numbers of fields are those of File.fbs, Message.fbs and Schema.fbs in
https://arrow.apache.org/docs/format/Columnar.html#ipc-file-format; how tables and vectors lie in
memory is in https://flatbuffers.dev/internals.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pyarrow as pa

from shared import errors
from shared.cards import card as cards
from shared.cards import manifest as manifests

MOST_FOOTER_BYTES = manifests.MOST_BYTES + 64 * 1024
"""The manifest, and far more than the columns need."""
_MOST_MESSAGE_BYTES = 64 * 1024
_MAGIC = b"ARROW1"
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
_CONTINUATION = -1
_SCHEMA, _RECORD_BATCH = 1, 3
_MOST_FIELDS = 7
_LEFT_OUT = (0,) * _MOST_FIELDS

_uint8 = struct.Struct("<B").unpack_from
_uint16 = struct.Struct("<H").unpack_from
_uint16s = [struct.Struct(f"<{count}H").unpack_from for count in range(_MOST_FIELDS + 1)]
_int16 = struct.Struct("<h").unpack_from
_uint32 = struct.Struct("<I").unpack_from
_int32 = struct.Struct("<i").unpack_from
_int64 = struct.Struct("<q").unpack_from
_prefix = struct.Struct("<ii").unpack_from  # Continuation marker, bytes of metadata.
_block = struct.Struct("<qi4xq").unpack_from  # Offset, bytes of metadata, bytes of the body.


def check(source: pa.Buffer, columns: Sequence[bytes], origin: str) -> None:
    """Refuses every file but one schema, one plain record batch and a footer that lists it.

    Args:
        source: the whole file.
        columns: the names of the columns, in order.
        origin: what to call the file in errors.

    Raises:
        errors.CardFormatError: names what is malformed, or the limit that is passed.
    """
    data = memoryview(source).cast("B")
    try:
        _check(data, columns)
    except struct.error as error:  # A position outside of the file.
        raise errors.CardFormatError(f"{origin}: not a readable Arrow file: {error}") from error
    except errors.CardFormatError as error:
        raise errors.CardFormatError(f"{origin}: {error}") from None


def _check(data: memoryview, columns: Sequence[bytes]) -> None:
    if data[:6] != _MAGIC or data[-6:] != _MAGIC:
        raise errors.CardFormatError("not a readable Arrow file: it does not begin and end as one")
    end = len(data) - 10
    (footer_bytes,) = _int32(data, end) if end > 0 else (0,)
    if not 0 < footer_bytes < end:
        raise errors.CardFormatError("not a readable Arrow file: it has no footer")
    if footer_bytes > MOST_FOOTER_BYTES:
        raise errors.CardFormatError(
            f"manifest: the footer that holds it has {footer_bytes} bytes; at most "
            f"{MOST_FOOTER_BYTES} are read"
        )
    metadata = data[end - footer_bytes : end]
    footer = _root(metadata)
    _check_schema(metadata, _table(metadata, _target(metadata, footer[1])), columns)
    if _count(metadata, footer[2]):
        raise errors.CardFormatError("it has dictionaries")
    if (batches := _count(metadata, footer[3])) != 1:
        raise errors.CardFormatError(f"it has {batches} record batches, expected 1")
    if _count(metadata, footer[4]):
        raise errors.CardFormatError("its footer has metadata of its own")
    block = _block(metadata, _target(metadata, footer[3]) + 4)
    _check_messages(data, block, end - footer_bytes)


def _check_schema(data: memoryview, schema: list[int], columns: Sequence[bytes]) -> None:
    """A tree of fields may name one field many times over: only leaves without metadata pass."""
    if schema[0] and _int16(data, schema[0])[0]:
        raise errors.CardFormatError("its numbers are big-endian; a card's are little-endian")
    if _count(data, schema[1]) != len(columns):
        raise errors.CardFormatError("its columns are not those of a skill card")
    first = _target(data, schema[1]) + 4
    for at, name in zip(range(first, first + 4 * len(columns), 4), columns, strict=True):
        field = _table(data, _target(data, at))
        text = _target(data, field[0])
        if _uint32(data, text)[0] != len(name) or data[text + 4 : text + 4 + len(name)] != name:
            raise errors.CardFormatError("its columns are not those of a skill card")
        if field[4] or _count(data, field[5]) or _count(data, field[6]):
            raise errors.CardFormatError(
                f"field {name.decode()}: has a dictionary, children or metadata of its own"
            )
    if _count(data, schema[2]) > 1:
        raise errors.CardFormatError("its schema has other metadata than the manifest")


def _check_messages(data: memoryview, block: tuple[int, int, int], footer_start: int) -> None:
    """The messages follow one another without gaps: schema, record batch, end of stream."""
    offset, metadata_bytes, body_bytes = block
    first = len(_MAGIC) + 2
    marker, schema_bytes = _prefix(data, first)
    start = first + 8
    if marker != _CONTINUATION or offset != start + schema_bytes or offset >= footer_start:
        raise errors.CardFormatError("its record batch does not follow its schema")
    schema = data[start:offset]
    if _kind(schema, _root(schema)) != _SCHEMA:
        raise errors.CardFormatError("its first message is no schema")
    marker, batch_bytes = _prefix(data, offset)
    if marker != _CONTINUATION or batch_bytes + 8 != metadata_bytes:
        raise errors.CardFormatError("not a readable Arrow file: its footer fits no record batch")
    if not 0 < batch_bytes <= _MOST_MESSAGE_BYTES:
        raise errors.CardFormatError(
            f"the metadata of its record batch has {batch_bytes} bytes; at most "
            f"{_MOST_MESSAGE_BYTES} are read"
        )
    body = offset + metadata_bytes
    if body_bytes < 0 or data[body + body_bytes : footer_start] != _END_OF_STREAM:
        raise errors.CardFormatError("it has other messages than a schema and a record batch")
    metadata = data[offset + 8 : body]
    message = _root(metadata)
    if _kind(metadata, message) != _RECORD_BATCH:
        raise errors.CardFormatError("its second message is no record batch")
    if message[4] or not message[3] or _int64(metadata, message[3])[0] != body_bytes:
        raise errors.CardFormatError("its record batch has another length or metadata of its own")
    batch = _table(metadata, _target(metadata, message[2]))
    if batch[3]:
        raise errors.CardFormatError("compressed cards are refused; write it uncompressed")
    rows = _int64(metadata, batch[0])[0] if batch[0] else 0
    if not 0 < rows <= cards.MOST_MODULES:
        raise errors.CardFormatError(
            f"field module: it has {rows} modules; a card has 1 to {cards.MOST_MODULES}"
        )


def _kind(data: memoryview, message: list[int]) -> int:
    """What a message holds."""
    return int(_uint8(data, message[1])[0]) if message[1] else 0


def _root(data: memoryview) -> list[int]:
    """The fields of a flatbuffer's outermost table."""
    return _table(data, _uint32(data, 0)[0])


def _table(data: memoryview, at: int) -> list[int]:
    """Where the fields of the table lie that begins there; 0 for those that were left out."""
    vtable = at - _int32(data, at)[0]
    if vtable < 0:  # struct would count from the end.
        raise struct.error("a table points before its buffer")
    count = (_uint16(data, vtable)[0] - 4) // 2
    if count < 0:
        raise struct.error("a table has no fields")
    # Tables that are read here have at most seven fields, and may leave out the last.
    offsets = _uint16s[count if count < _MOST_FIELDS else _MOST_FIELDS](data, vtable + 4)
    return [offset and at + offset for offset in offsets + _LEFT_OUT]


def _target(data: memoryview, at: int) -> int:
    """Where the table, vector or text begins that a field points to."""
    if not at:
        raise struct.error("a field is missing that every card has")
    return int(at + _uint32(data, at)[0])


def _count(data: memoryview, at: int) -> int:
    """Items of the vector that a field points to."""
    return int(_uint32(data, _target(data, at))[0]) if at else 0
