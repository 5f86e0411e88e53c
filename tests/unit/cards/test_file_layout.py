"""What is refused before Arrow reads it, because reading it could cost anything."""

from __future__ import annotations

import struct

import pyarrow as pa
import pytest

from shared import errors, file_layout
from shared.cards import card as cards
from shared.cards import format as formats
from shared.cards import manifest as manifests
from tests import fakes


def _batch() -> pa.RecordBatch:
    return pa.ipc.open_file(formats.LoRAFormat.to_bytes(fakes.tiny_card())).get_batch(0)


def _file(batch: pa.RecordBatch, compression: str | None = None, note: object = None) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_file(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch, custom_metadata=note)
    return bytes(sink.getvalue())


def _check(data: bytes) -> None:
    file_layout.check(pa.py_buffer(data), formats.LAYOUT, "card")


def _with_field(at: int, field: pa.Field, column: pa.Array) -> pa.RecordBatch:
    batch = _batch()
    columns = [*batch.columns[:at], column, *batch.columns[at + 1 :]]
    return pa.record_batch(columns, schema=batch.schema.set(at, field))


def _footer_start(data: bytes) -> int:
    return len(data) - 10 - struct.unpack_from("<i", data, len(data) - 10)[0]


def test_nothing_is_refused_when_the_file_is_a_card() -> None:
    _check(formats.LoRAFormat.to_bytes(fakes.tiny_card()))
    _check(_file(_batch()))


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_file_is_refused_when_its_body_is_compressed(compression: str) -> None:
    with pytest.raises(errors.CardFormatError, match="card: compressed cards are refused"):
        _check(_file(_batch(), compression))


def test_file_is_refused_when_its_numbers_are_big_endian() -> None:
    data = bytearray(_file(_batch()))
    footer = _footer_start(data)

    def table(at: int) -> tuple[int, int]:
        return at, at - struct.unpack_from("<i", data, at)[0]

    def target(of: tuple[int, int], field: int) -> int:
        at = of[0] + struct.unpack_from("<H", data, of[1] + 4 + 2 * field)[0]
        return at + struct.unpack_from("<I", data, at)[0]

    root = table(footer + struct.unpack_from("<I", data, footer)[0])
    _, vtable = table(target(root, 1))
    # Endianness lies where the offset of the fields does: any number but 0 is big-endian.
    data[vtable + 4 : vtable + 6] = data[vtable + 6 : vtable + 8]
    ranks = pa.ipc.open_file(pa.py_buffer(bytes(data))).get_batch(0).column("rank").to_pylist()
    assert ranks == [2 << 24] * 2  # Arrow has copied the body and swapped it.
    with pytest.raises(errors.CardFormatError, match="big-endian"):
        _check(bytes(data))


def test_file_is_refused_when_a_column_has_a_dictionary_or_children_or_metadata() -> None:
    module, rank = formats.SCHEMA.field("module"), formats.SCHEMA.field("rank")
    words = _batch().column("module").dictionary_encode()
    many = pa.array([[1], [2]], pa.list_(pa.int32()))
    for batch in (
        _with_field(0, pa.field("module", words.type), words),
        _with_field(1, pa.field("rank", many.type), many),
        _with_field(1, rank.with_metadata({"a": "b"}), _batch().column("rank")),
        _with_field(0, module.with_metadata({"a": "b" * 1000}), _batch().column("module")),
    ):
        with pytest.raises(errors.CardFormatError, match=r"field (module|rank): has a dictionary"):
            _check(_file(batch))


def test_file_is_refused_when_there_is_metadata_beside_the_manifest() -> None:
    two = {**_batch().schema.metadata, "other": "x"}
    with pytest.raises(errors.CardFormatError, match="2 entries of metadata; a card has at most 1"):
        _check(_file(_batch().replace_schema_metadata(two)))
    with pytest.raises(errors.CardFormatError, match="metadata of its own"):
        _check(_file(_batch(), note={"a": "b"}))
    with pytest.raises(errors.CardFormatError, match="footer has metadata of its own"):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, _batch().schema, metadata={"a": "b"}) as writer:
            writer.write_batch(_batch())
        _check(bytes(sink.getvalue()))


def test_file_is_refused_when_there_is_something_between_its_messages() -> None:
    data = _file(_batch())
    at = _footer_start(data)
    for hidden in (b"\0" * 8, data[8:at]):
        changed = data[:at] + hidden + data[at:]
        assert pa.ipc.open_file(pa.py_buffer(changed)).get_batch(0).equals(_batch())
        with pytest.raises(errors.CardFormatError, match="other messages"):
            _check(changed)


@pytest.mark.parametrize("rows", [0, cards.MOST_MODULES + 1])
def test_file_is_refused_when_it_has_too_few_or_too_many_rows(rows: int) -> None:
    batch = _batch().slice(0, 1)
    many = pa.concat_batches([batch] * rows) if rows else batch.slice(0, 0)
    with pytest.raises(errors.CardFormatError, match=f"field module: it has {rows} .* 1 to 16384"):
        _check(_file(many))


def test_file_is_refused_when_its_footer_is_larger_than_a_manifest_may_be() -> None:
    long = {formats.METADATA_KEY: "x" * (manifests.MOST_BYTES + 100_000)}
    with pytest.raises(errors.CardFormatError, match=r"manifest: .* at most 4259840"):
        _check(_file(_batch().replace_schema_metadata(long)))


@pytest.mark.parametrize("value", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f"])
def test_file_is_refused_or_harmless_when_any_word_of_its_metadata_is_wrong(value: bytes) -> None:
    data = formats.LoRAFormat.to_bytes(fakes.tiny_card())
    refused = 0
    for at in range(0, len(data) - 3):
        try:
            formats.LoRAFormat.from_bytes(data[:at] + value + data[at + 4 :])
        except errors.CardFormatError:
            refused += 1
    assert refused > 500
