"""The layout of an Arrow IPC file from strangers, checked before Arrow follows what the file says.

Arrow unpacks bodies, swaps their bytes and copies metadata as often as a file asks for it: some KB
can cost GBs before anything of them can be refused. So the fields that ask for it are read here
first, straight from the flatbuffers, and only the layout that this project writes goes on to
Arrow. Knows nothing of what the columns mean and allocates nothing; types and buffers are Arrow's
to verify.

The numbers of fields are those of File.fbs, Message.fbs and Schema.fbs in
https://arrow.apache.org/docs/format/Columnar.html#ipc-file-format; how tables and vectors lie in
memory is in https://flatbuffers.dev/internals.
"""

from __future__ import annotations

import dataclasses
import itertools
import struct

import numpy as np
import pyarrow as pa

from shared import errors

COLUMNS_FOOTER_BYTES = 64 * 1024
"""Far more than the columns need of a footer."""
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


@dataclasses.dataclass(frozen=True)
class Layout:
    """What the files of one kind have in common."""

    kind: str
    """What a file is called in errors."""
    columns: tuple[bytes, ...]
    """Their names, in order."""
    error: type[errors.InvalidInputError]
    """Raised for another layout."""
    fewest_rows: int
    most_rows: int
    lists: frozenset[bytes] = frozenset()
    """Columns whose values are lists of plain values; all others are plain."""
    most_metadata: int = 0
    """Entries of the schema's metadata."""
    most_footer_bytes: int = COLUMNS_FOOTER_BYTES
    footer: str = "its footer"
    """What the footer is called in errors."""


class _OtherLayout(Exception):
    """The file has another layout; the message says where."""


def check(source: pa.Buffer, layout: Layout, origin: str) -> None:
    """Refuses every file but one schema, one plain record batch and a footer that lists it.

    Args:
        source: the whole file.
        layout: of its kind; where no rows are allowed, the record batch may be missing.
        origin: what to call the file in errors.

    Raises:
        errors.InvalidInputError: of the layout's class; names what is malformed, or the limit
            that is passed.
    """
    data = memoryview(source).cast("B")
    try:
        _check(data, layout)
    except struct.error as error:  # A position outside of the file.
        raise layout.error(f"{origin}: not a readable Arrow file: {error}") from error
    except _OtherLayout as error:
        raise layout.error(f"{origin}: {error}") from None


def read(data: bytes | pa.Buffer, layout: Layout, schema: pa.Schema) -> pa.Table:
    """The table of a file that passes `check`, still in the bytes it lies in.

    Args:
        data: the whole file.
        layout: of its kind.
        schema: its columns, none of which may have nulls.

    Raises:
        errors.InvalidInputError: of the layout's class; names what is malformed.
    """
    kind, source = layout.kind, pa.py_buffer(data)
    check(source, layout, kind)
    try:
        table = pa.ipc.open_file(source).read_all()
        if not table.schema.equals(schema):
            raise layout.error(f"{kind}: its columns have other types than those of a {kind}")
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise layout.error(f"{kind}: not a readable Arrow file: {error}") from error
    for name in schema.names:
        nulls = table.column(name).null_count
        if name.encode() in layout.lists:
            nulls += sum(chunk.values.null_count for chunk in table.column(name).chunks)
        if nulls:
            raise layout.error(f"{kind}: field {name}: {nulls} of its values are null")
    return table


def values(column: pa.LargeBinaryArray) -> list[pa.Buffer]:
    """Views of the values of a validated column."""
    _, offsets, body = column.buffers()
    if body is None:  # Only where every value is empty.
        return [pa.py_buffer(b"")] * len(column)
    # By their count: a file may say that the buffer has some bytes more.
    ends = np.frombuffer(offsets, np.int64, column.offset + len(column) + 1)[column.offset :]
    return [body.slice(start, end - start) for start, end in itertools.pairwise(ends.tolist())]


def _check(data: memoryview, layout: Layout) -> None:
    if data[:6] != _MAGIC or data[-6:] != _MAGIC:
        raise _OtherLayout("not a readable Arrow file: it does not begin and end as one")
    end = len(data) - 10
    (footer_bytes,) = _int32(data, end) if end > 0 else (0,)
    if not 0 < footer_bytes < end:
        raise _OtherLayout("not a readable Arrow file: it has no footer")
    if footer_bytes > layout.most_footer_bytes:
        raise _OtherLayout(
            f"{layout.footer} has {footer_bytes} bytes; at most {layout.most_footer_bytes} are read"
        )
    metadata = data[end - footer_bytes : end]
    footer = _root(metadata)
    _check_schema(metadata, _table(metadata, _target(metadata, footer[1])), layout)
    if _count(metadata, footer[2]):
        raise _OtherLayout("it has dictionaries")
    batches = _count(metadata, footer[3])
    if batches > 1 or (batches == 0 and layout.fewest_rows):
        raise _OtherLayout(f"it has {batches} record batches, expected 1")
    if _count(metadata, footer[4]):
        raise _OtherLayout("its footer has metadata of its own")
    batch_start = _after_schema(data, end - footer_bytes)
    if not batches:
        _check_end(data, batch_start, end - footer_bytes)
        return
    block = _block(metadata, _target(metadata, footer[3]) + 4)
    if block[0] != batch_start:
        raise _OtherLayout("its record batch does not follow its schema")
    _check_batch(data, block, end - footer_bytes, layout)


def _check_schema(data: memoryview, schema: list[int], layout: Layout) -> None:
    """A tree of fields may name one field many times over: only small ones pass."""
    if schema[0] and _int16(data, schema[0])[0]:
        raise _OtherLayout("its numbers are big-endian; expected little-endian ones")
    columns = layout.columns
    if _count(data, schema[1]) != len(columns):
        raise _OtherLayout(f"its columns are not those of a {layout.kind}")
    first = _target(data, schema[1]) + 4
    for at, name in zip(range(first, first + 4 * len(columns), 4), columns, strict=True):
        field = _table(data, _target(data, at))
        text = _target(data, field[0])
        if _uint32(data, text)[0] != len(name) or data[text + 4 : text + 4 + len(name)] != name:
            raise _OtherLayout(f"its columns are not those of a {layout.kind}")
        if name in layout.lists and _count(data, field[5]) == 1:
            values = _target(data, field[5]) + 4
            is_plain = _is_plain(data, _table(data, _target(data, values)))
            has_more = bool(field[4] or _count(data, field[6]))
        else:
            is_plain, has_more = _is_plain(data, field), False
        if has_more or not is_plain:
            raise _OtherLayout(
                f"field {name.decode()}: has a dictionary, children or metadata of its own"
            )
    if (entries := _count(data, schema[2])) > layout.most_metadata:
        raise _OtherLayout(
            f"its schema has {entries} entries of metadata; a {layout.kind} has at most "
            f"{layout.most_metadata}"
        )


def _is_plain(data: memoryview, field: list[int]) -> bool:
    """Whether a field has no dictionary, no children and no metadata."""
    return not (field[4] or _count(data, field[5]) or _count(data, field[6]))


def _after_schema(data: memoryview, footer_start: int) -> int:
    """Where the first message ends, which is the schema."""
    first = len(_MAGIC) + 2
    marker, schema_bytes = _prefix(data, first)
    start = first + 8
    after = int(start + schema_bytes)
    if marker != _CONTINUATION or not start < after < footer_start:
        raise _OtherLayout("its record batch does not follow its schema")
    schema = data[start:after]
    if _kind(schema, _root(schema)) != _SCHEMA:
        raise _OtherLayout("its first message is no schema")
    return after


def _check_batch(
    data: memoryview, block: tuple[int, int, int], footer_start: int, layout: Layout
) -> None:
    offset, metadata_bytes, body_bytes = block
    marker, batch_bytes = _prefix(data, offset)
    if marker != _CONTINUATION or batch_bytes + 8 != metadata_bytes:
        raise _OtherLayout("not a readable Arrow file: its footer fits no record batch")
    if not 0 < batch_bytes <= _MOST_MESSAGE_BYTES:
        raise _OtherLayout(
            f"the metadata of its record batch has {batch_bytes} bytes; at most "
            f"{_MOST_MESSAGE_BYTES} are read"
        )
    body = offset + metadata_bytes
    if body_bytes < 0:
        raise _OtherLayout("its record batch has another length or metadata of its own")
    _check_end(data, body + body_bytes, footer_start)
    metadata = data[offset + 8 : body]
    message = _root(metadata)
    if _kind(metadata, message) != _RECORD_BATCH:
        raise _OtherLayout("its second message is no record batch")
    if message[4] or not message[3] or _int64(metadata, message[3])[0] != body_bytes:
        raise _OtherLayout("its record batch has another length or metadata of its own")
    batch = _table(metadata, _target(metadata, message[2]))
    if batch[3]:
        raise _OtherLayout(f"compressed {layout.kind}s are refused; write it uncompressed")
    rows = _int64(metadata, batch[0])[0] if batch[0] else 0
    if not layout.fewest_rows <= rows <= layout.most_rows:
        raise _OtherLayout(
            f"field {layout.columns[0].decode()}: it has {rows} rows; a {layout.kind} has "
            f"{layout.fewest_rows} to {layout.most_rows}"
        )


def _check_end(data: memoryview, at: int, footer_start: int) -> None:
    """The messages follow one another without gaps: schema, record batch, end of stream."""
    if data[at:footer_start] != _END_OF_STREAM:
        raise _OtherLayout("it has other messages than a schema and a record batch")


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
