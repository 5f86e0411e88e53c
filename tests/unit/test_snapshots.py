from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from shared import errors
from shared.flight import snapshots


def tensor(name: str = "lora_A", **changed: object) -> snapshots.Tensor:
    values = np.arange(6, dtype=np.float32)
    made = snapshots.Tensor("procedures", name, "float32", (2, 3), pa.py_buffer(values.tobytes()))
    return dataclasses.replace(made, **changed)  # type: ignore[arg-type]


def written(table: pa.Table, compression: str | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def table_of(*tensors: snapshots.Tensor) -> pa.Table:
    rows = [dataclasses.asdict(one) | {"data": one.data.to_pybytes()} for one in tensors]
    return pa.Table.from_pylist(rows, schema=snapshots.SCHEMA)


def test_tensors_are_the_same_when_they_were_written_and_read() -> None:
    tensors = [
        tensor(),
        tensor("lora_B", dtype="bfloat16", shape=(3, 4)),
        tensor("steps", dtype="int64", shape=(), data=pa.py_buffer(bytes(8))),
        tensor("nothing", shape=(0, 7), data=pa.py_buffer(b"")),
        tensor(layer="habits"),
    ]
    data = snapshots.to_bytes(tensors)
    read = snapshots.from_bytes(data)
    assert read == tensors
    assert snapshots.to_bytes(read) == data


def test_nothing_is_copied_when_a_large_snapshot_is_checked() -> None:
    large = pa.py_buffer(bytes(32 * 2**20))
    data = pa.py_buffer(snapshots.to_bytes([tensor(shape=(8, 2**20), data=large)]))
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    [read] = snapshots.from_bytes(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20 and pa.total_allocated_bytes() - before < 2**20
    assert data.address < read.data.address < data.address + data.size


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"dtype": "float8"}, "dtype 'float8'"),
        ({"shape": (2, 2)}, "has 24 bytes"),
        ({"shape": (-2, -3)}, "shape"),
        ({"shape": (1,) * 9}, "shape"),
        ({"shape": (2**62, 2**62)}, "has 24 bytes"),
        ({"data": pa.py_buffer(b"")}, "has 0 bytes"),
    ],
)
def test_tensor_is_refused_when_it_is_not_what_it_says(
    changed: dict[str, object], told: str
) -> None:
    bad = tensor(**changed)
    for attempt in (
        lambda: snapshots.to_bytes([bad]),
        lambda: snapshots.check(written(table_of(tensor("good"), bad))),
    ):
        with pytest.raises(errors.InvalidInputError, match=told) as caught:
            attempt()
        assert "'procedures', 'lora_A'" in str(caught.value)


def test_snapshot_is_refused_when_a_tensor_comes_twice() -> None:
    with pytest.raises(errors.InvalidInputError, match="twice"):
        snapshots.to_bytes([tensor(), tensor()])


def test_file_is_refused_when_it_is_no_snapshot() -> None:
    good = table_of(tensor())
    for data in (
        b"",
        b"nonsense" * 100,
        written(good, compression="zstd"),
        written(good.drop_columns(["shape"])),
        written(good.rename_columns(["layer", "name", "dtype", "shape", "bytes"])),
        written(good.slice(0, 0)),
    ):
        with pytest.raises(errors.InvalidInputError, match="snapshot"):
            snapshots.check(data)
