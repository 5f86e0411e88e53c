"""Datasets from strangers: what is refused, and that nothing is unpacked before it is."""

from __future__ import annotations

import itertools

import pyarrow as pa
import pytest

from shared import errors
from shared.flight import datasets

PAIR = datasets.QAPair(
    "q?",
    "a",
    ("q, then?",),
    "notes.md",
    "documents",
    1.0,
    ("so, q?",),
    datasets.Kind.CONTRAST,
    "A. q.",
)


def table(**columns: list[object]) -> pa.Table:
    """One pair as a table, with some of its columns changed."""
    plain = pa.ipc.open_file(datasets.to_bytes([PAIR])).read_all()
    for name, values in columns.items():
        field = datasets.SCHEMA.field(name)
        at = plain.schema.get_field_index(name)
        plain = plain.set_column(at, field, pa.array(values, field.type))
    return plain


def file(content: pa.Table, compression: str | None = None, times: int = 1) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_file(sink, content.schema, options=options) as writer:
        for _ in range(times):
            writer.write_table(content)
    return bytes(sink.getvalue())


@pytest.mark.parametrize("count", [0, 1, 3])
def test_pairs_are_the_same_when_they_were_written_and_read(count: int) -> None:
    pairs = [PAIR] * count
    assert datasets.from_bytes(datasets.to_bytes(pairs)) == pairs


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_dataset_is_refused_without_unpacking_when_it_is_compressed(compression: str) -> None:
    size = 50 * 1024 * 1024
    bomb = file(table(answer=["a" * size]), compression)
    assert len(bomb) < size // 100
    pool = pa.default_memory_pool()
    before = pool.total_bytes_allocated()
    with pytest.raises(errors.InvalidInputError, match="compressed datasets are refused"):
        datasets.from_bytes(bomb)
    assert pool.total_bytes_allocated() - before < 1024 * 1024
    pa.ipc.open_file(bomb).read_all()  # What it would have cost.
    assert pool.total_bytes_allocated() - before > size


@pytest.mark.parametrize(
    ("data", "named"),
    [
        pytest.param(b"", "not a readable Arrow file", id="nothing"),
        pytest.param(b"ARROW1\0\0" + bytes(64) + b"ARROW1", "no footer", id="no-footer"),
        pytest.param(file(table(), times=2), "2 record batches", id="two-batches"),
        pytest.param(file(table().drop_columns("score")), "columns", id="column-missing"),
        pytest.param(
            file(table().replace_schema_metadata({"a": "b"})), "entries of metadata", id="metadata"
        ),
        pytest.param(
            file(table().set_column(0, "question", pa.array(["q?"]).dictionary_encode())),
            "field question: has a dictionary",
            id="dictionary",
        ),
        pytest.param(
            file(table().set_column(2, "paraphrases", pa.array([[["q?"]]]))),
            "field paraphrases: has a dictionary, children",
            id="nested-lists",
        ),
        pytest.param(
            file(table().set_column(0, "question", pa.array([1]))),
            "other types than those of a dataset",
            id="type",
        ),
        pytest.param(file(table(question=[None])), "field question: 1 .* null", id="null"),
        pytest.param(file(table(held_out=[["h?", None]])), "field held_out: 1 .* null", id="nulls"),
    ],
)
def test_dataset_is_refused_when_it_has_another_layout(data: bytes, named: str) -> None:
    with pytest.raises(errors.InvalidInputError, match=named):
        datasets.from_bytes(data)


def test_dataset_is_refused_when_it_has_too_many_pairs() -> None:
    many = pa.concat_tables([table()] * (datasets.MOST_PAIRS + 1)).combine_chunks()
    with pytest.raises(errors.InvalidInputError, match=f"100001 rows; .* {datasets.MOST_PAIRS}"):
        datasets.check(file(many))
    with pytest.raises(errors.InvalidInputError, match="at most 100000"):
        datasets.to_bytes([PAIR] * (datasets.MOST_PAIRS + 1))


def test_dataset_is_refused_or_harmless_when_any_word_of_it_is_wrong() -> None:
    data = datasets.to_bytes([PAIR, PAIR])
    refused = 0
    values = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f")
    for at, value in itertools.product(range(0, len(data) - 3, 4), values):
        try:
            datasets.from_bytes(data[:at] + value + data[at + 4 :])
        except errors.InvalidInputError:
            refused += 1
    assert refused > 300


def test_dataset_is_refused_when_a_pair_is_of_no_known_kind() -> None:
    with pytest.raises(errors.InvalidInputError, match="kind 'rumour' is none of fact, "):
        datasets.from_bytes(file(table(kind=["rumour"])))
