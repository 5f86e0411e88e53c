"""`LoRAFormat`: exact round trips, and a typed error for every way a file can be wrong."""

from __future__ import annotations

import pathlib

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest

from shared import errors
from shared.cards import card as cards
from shared.cards import format as formats
from shared.cards import manifest as manifests
from tests import fakes


def _card(*modules: tuple[str, cards.ModuleWeights]) -> cards.LoRACard:
    return cards.LoRACard(fakes.tiny_card().manifest, dict(modules))


def _table(card: cards.LoRACard) -> pa.Table:
    return pa.ipc.open_file(formats.LoRAFormat.to_bytes(card)).read_all()


def _file(table: pa.Table, compression: str | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _changed(column: str, value: object) -> bytes:
    """The file of a good card with one cell replaced."""
    table = _table(fakes.tiny_card(modules=1))
    field = table.schema.field(column)
    at = table.schema.get_field_index(column)
    return _file(table.set_column(at, field, pa.array([value], field.type)))


@pytest.mark.parametrize("dtype", sorted(fakes.BITS))
def test_weights_are_the_same_bits_when_a_card_went_through_a_file(dtype, tmp_path):
    card, path = (
        _card(("a.q_proj", fakes.any_weights(dtype, 2, 9, 5))),
        tmp_path / "new" / "a.lora.arrow",
    )
    digest = formats.LoRAFormat.save(card, path)
    assert digest == formats.file_digest(path)
    assert formats.LoRAFormat.load(path, digest).modules == card.modules
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_weights_stay_in_the_mapped_file_when_a_card_is_loaded(tmp_path):
    path = tmp_path / "a.lora.arrow"
    formats.LoRAFormat.save(_card(("a.q_proj", fakes.any_weights("float32", 8, 4096, 4096))), path)
    before = pa.total_allocated_bytes()
    card = formats.LoRAFormat.load(path)
    assert card.size_bytes == 2 * 8 * 4096 * 4
    assert pa.total_allocated_bytes() - before < 10_000


def test_bytes_are_equal_when_cards_are_equal():
    assert formats.LoRAFormat.to_bytes(fakes.tiny_card()) == formats.LoRAFormat.to_bytes(
        fakes.tiny_card()
    )
    assert formats.LoRAFormat.to_bytes(fakes.tiny_card()) != formats.LoRAFormat.to_bytes(
        fakes.tiny_card(seed=1)
    )


@pytest.mark.parametrize("length", range(0, 80, 7))
def test_body_is_aligned_to_64_bytes_when_the_manifest_has_any_length(length):
    card = fakes.tiny_card()
    card = card.with_manifest(card.manifest.model_copy(update={"description": "x" * length}))
    buffer = pa.py_buffer(formats.LoRAFormat.to_bytes(card))
    batch = pa.ipc.open_file(buffer).get_batch(0)
    assert (batch.column("lora_A").buffers()[2].address - buffer.address) % 64 == 0


def test_file_is_refused_when_one_bit_is_flipped(tmp_path):
    path = tmp_path / "a.lora.arrow"
    digest = formats.LoRAFormat.save(fakes.tiny_card(), path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(errors.IntegrityError, match=digest):
        formats.LoRAFormat.load(path, digest)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_file_is_refused_when_it_is_truncated(share, tmp_path):
    data, path = formats.LoRAFormat.to_bytes(fakes.tiny_card()), tmp_path / "a.lora.arrow"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(errors.CardFormatError, match=r"a\.lora\.arrow"):
        formats.LoRAFormat.load(path)


@hypothesis.settings(deadline=None, max_examples=150)
@hypothesis.given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
@hypothesis.example(at=1336, bit=0)  # A buffer of offsets with a byte more.
def test_flipped_bit_gives_a_card_or_a_typed_error_when_no_digest_is_known(at, bit):
    data = bytearray(formats.LoRAFormat.to_bytes(fakes.tiny_card()))
    data[at % len(data)] ^= 1 << bit
    try:
        found = formats.LoRAFormat.from_bytes(bytes(data))
    except errors.CardFormatError:
        return
    assert all(len(bytes(w.lora_a)) == w.in_features * w.rank * 2 for _, w in found)


def test_file_is_refused_when_there_is_none_or_it_is_not_arrow(tmp_path):
    with pytest.raises(errors.NotFoundError, match="missing"):
        formats.LoRAFormat.load(tmp_path / "missing.lora.arrow")
    with pytest.raises(errors.CardFormatError, match="not a readable Arrow file"):
        formats.LoRAFormat.from_bytes(b"PK\x03\x04 a pickle in a zip, as torch writes it")


def test_file_is_refused_when_it_is_too_large(tmp_path, monkeypatch):
    path = tmp_path / "a.lora.arrow"
    formats.LoRAFormat.save(fakes.tiny_card(), path)
    monkeypatch.setattr(formats, "LARGEST_FILE_BYTES", 100)
    with pytest.raises(errors.CardFormatError, match="at most 100"):
        formats.LoRAFormat.load(path)


def test_card_is_not_saved_when_its_file_would_be_too_large(tmp_path, monkeypatch):
    card, path = fakes.tiny_card(), tmp_path / "a.lora.arrow"
    for limit in (card.size_bytes - 1, card.size_bytes + 1):
        monkeypatch.setattr(formats, "LARGEST_FILE_BYTES", limit)
        with pytest.raises(errors.CardFormatError, match=f"card tiny: .* at most {limit}"):
            formats.LoRAFormat.save(card, path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [cards.MOST_MODULES, cards.MOST_MODULES + 1])
def test_card_is_refused_when_it_has_too_many_modules(count):
    weights = fakes.any_weights("float16", 1, 1, 1)
    rows = ((f"{number}.q_proj", weights) for number in range(count))
    if count > cards.MOST_MODULES:
        with pytest.raises(errors.CardFormatError, match="16385 modules; at most 16384"):
            _card(*rows)
    else:
        card = _card(*rows)
        assert (
            len(formats.LoRAFormat.from_bytes(formats.LoRAFormat.to_bytes(card)).modules) == count
        )


@pytest.mark.parametrize(
    ("description", "named"),
    [("x" * manifests.MOST_BYTES, "at most 4194304"), ("," * 70_000, "at most 65536")],
)
def test_card_is_neither_saved_nor_loaded_when_its_manifest_is_too_large(description, named):
    card = fakes.tiny_card()
    large = card.manifest.model_copy(update={"description": description})
    with pytest.raises(errors.CardFormatError, match=f"manifest: .* {named}"):
        formats.LoRAFormat.to_bytes(card.with_manifest(large))
    with pytest.raises(errors.CardFormatError, match=f"manifest: .* {named}"):
        manifests.parse(large.to_json())


@pytest.mark.parametrize("column", ["module", "dtype"])
def test_file_is_refused_when_its_texts_are_too_long(column):
    with pytest.raises(errors.CardFormatError, match=f"field {column}: .* at most"):
        formats.LoRAFormat.from_bytes(_changed(column, "x" * 9_000_000))
    with pytest.raises(errors.CardFormatError, match=f"field {column}: ") as caught:
        formats.LoRAFormat.from_bytes(_changed(column, "x" * 200_000))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("column", formats.SCHEMA.names)
def test_error_names_the_column_when_a_value_is_null(column):
    table = _table(fakes.tiny_card())
    values = table.column(column).to_pylist()
    nulls = pa.array([values[0], None], table.schema.field(column).type)
    at = table.schema.get_field_index(column)
    bad = table.set_column(at, table.schema.field(column), nulls)
    with pytest.raises(errors.CardFormatError, match=f"field {column}: 1 of its values are null"):
        formats.LoRAFormat.from_bytes(_file(bad))


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_file_is_refused_when_it_is_compressed(compression):
    # All the same value: what is small as a file and large in memory.
    zeros = pa.py_buffer(bytes(2 * 200_000 * 4))
    card = _card(
        ("a.q_proj", cards.ModuleWeights(2, 200_000, 200_000, 4.0, "float32", zeros, zeros))
    )
    data = _file(_table(card), compression)
    assert len(data) < 100_000
    with pytest.raises(errors.CardFormatError, match="compressed"):
        formats.LoRAFormat.from_bytes(data)


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_file_is_refused_when_it_is_small_and_compressed(compression):
    with pytest.raises(errors.CardFormatError, match="compressed"):
        formats.LoRAFormat.from_bytes(_file(_table(fakes.tiny_card()), compression))


@pytest.mark.parametrize(
    ("column", "value", "named"),
    [
        ("rank", 3, "lora_A"),
        ("rank", 0, "rank"),
        ("rank", 9, "rank"),
        ("in_features", 7, "lora_A"),
        ("in_features", -8, "in_features"),
        ("out_features", 7, "lora_B"),
        ("alpha", float("nan"), "alpha"),
        ("alpha", -1.0, "alpha"),
        ("dtype", "float32", "lora_A"),
        ("dtype", "int8", "dtype"),
        ("module", "", "module"),
        ("module", "a.k_proj", "target_modules"),
        ("lora_A", b"", "lora_A"),
        ("lora_A", np.full(16, np.nan, "float16").tobytes(), "lora_A: holds NaN"),
        ("lora_B", np.full(16, np.inf, "float16").tobytes(), "lora_B: holds NaN"),
    ],
)
def test_error_names_the_field_when_it_is_wrong(column, value, named):
    with pytest.raises(errors.CardFormatError, match=named):
        formats.LoRAFormat.from_bytes(_changed(column, value))


@pytest.mark.parametrize("dtype", sorted(fakes.BITS))
@pytest.mark.parametrize("mantissa", [0, 1])
def test_card_is_refused_when_a_value_is_not_finite(dtype, mantissa):
    good = fakes.any_weights(dtype, 1, 3, 3)
    values = np.frombuffer(good.lora_b, fakes.BITS[dtype]).copy()
    values[1] = fakes.NOT_FINITE[dtype] + mantissa
    bad = good._replace(lora_b=pa.py_buffer(values.tobytes()))
    with pytest.raises(errors.CardFormatError, match=r"a\.q_proj: field lora_B: holds NaN"):
        _card(("a.q_proj", bad))


def test_file_is_refused_when_its_columns_are_others():
    table = _table(fakes.tiny_card())
    for wrong in (table.drop_columns(["alpha"]), table.append_column("x", pa.array([1, 2]))):
        with pytest.raises(errors.CardFormatError, match="columns"):
            formats.LoRAFormat.from_bytes(_file(wrong))


def test_file_is_refused_when_a_module_appears_twice():
    table = _table(fakes.tiny_card(modules=1))
    twice = pa.concat_tables([table, table]).combine_chunks()
    with pytest.raises(errors.CardFormatError, match="twice"):
        formats.LoRAFormat.from_bytes(_file(twice))


def test_file_is_refused_when_it_has_other_than_one_batch():
    table = _table(fakes.tiny_card(modules=1))
    with pytest.raises(errors.CardFormatError, match="2 record batches"):
        formats.LoRAFormat.from_bytes(_file(pa.concat_tables([table, table])))


def test_file_is_refused_when_it_has_no_manifest():
    table = _table(fakes.tiny_card()).replace_schema_metadata({})
    with pytest.raises(errors.CardFormatError, match=r"skillmesh\.manifest"):
        formats.LoRAFormat.from_bytes(_file(table))


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", '"Not A Name"'), ("version", '"1"'), ("unknown", "1"), ("created_at", "null")],
)
def test_error_names_the_manifest_field_when_it_is_wrong(field, value):
    text = fakes.tiny_card().manifest.to_json()
    wrong = text[:-1] + f',"{field}":{value}}}'
    table = _table(fakes.tiny_card()).replace_schema_metadata({formats.METADATA_KEY: wrong})
    with pytest.raises(errors.CardFormatError, match=field):
        formats.LoRAFormat.from_bytes(_file(table))


def test_manifest_is_refused_when_its_format_is_newer():
    card = fakes.tiny_card()
    newer = card.manifest.model_copy(update={"format_version": 2}).to_json()
    with pytest.raises(errors.CardFormatError, match="format_version"):
        manifests.parse(newer)


def test_old_file_stays_when_the_new_one_can_not_be_written(tmp_path, monkeypatch):
    path = tmp_path / "a.lora.arrow"
    digest = formats.LoRAFormat.save(fakes.tiny_card(), path)

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(formats.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        formats.LoRAFormat.save(fakes.tiny_card(seed=1), path)
    assert formats.file_digest(path) == digest
    assert list(tmp_path.iterdir()) == [pathlib.Path(path)]
