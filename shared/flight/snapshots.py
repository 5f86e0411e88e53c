"""`Tensor` and the Arrow table in which the shared layers of the hierarchy travel as a snapshot.

One row a tensor, uncompressed, so that a reader maps it. What the layers are, `services/hierarchy`
knows; here a snapshot is named tensors by layer.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pyarrow as pa

from shared import errors, file_layout

SCHEMA = pa.schema(
    [
        pa.field("layer", pa.utf8(), nullable=False),
        pa.field("name", pa.utf8(), nullable=False),
        pa.field("dtype", pa.utf8(), nullable=False),
        pa.field("shape", pa.list_(pa.int64()), nullable=False),
        pa.field("data", pa.large_binary(), nullable=False),
    ]
)
ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "uint8": 1}
"""Bytes of one value, by dtype."""
MOST_TENSORS = 100_000
_MOST_DIMENSIONS = 8
_LAYOUT = file_layout.Layout(
    kind="snapshot",
    columns=tuple(name.encode() for name in SCHEMA.names),
    error=errors.InvalidInputError,
    fewest_rows=1,
    most_rows=MOST_TENSORS,
    lists=frozenset({b"shape"}),
)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One named tensor of a layer, row-major, little-endian."""

    layer: str
    name: str
    dtype: str
    """One of `ITEM_BYTES`."""
    shape: tuple[int, ...]
    data: pa.Buffer


def to_bytes(tensors: Sequence[Tensor]) -> bytes:
    """The Arrow IPC file of a snapshot; equal tensors in equal order give equal bytes.

    Raises:
        errors.InvalidInputError: as `check`.
    """
    columns = [[getattr(tensor, name) for tensor in tensors] for name in SCHEMA.names[:-1]]
    data = pa.array([tensor.data.to_pybytes() for tensor in tensors], pa.large_binary())
    arrays = [pa.array(values, SCHEMA.field(at).type) for at, values in enumerate(columns)]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, SCHEMA) as writer:
        writer.write_batch(pa.record_batch([*arrays, data], schema=SCHEMA))
    written = sink.getvalue()
    check(written)
    return bytes(written)


def check(data: bytes | pa.Buffer) -> pa.Table:
    """The table of a snapshot, still in the bytes it lies in: nothing was copied or unpacked.

    Raises:
        errors.InvalidInputError: the bytes are not such a snapshot; names what is wrong.
    """
    table = file_layout.read(data, _LAYOUT, SCHEMA)
    seen: set[tuple[str, str]] = set()
    described = table.select(SCHEMA.names[:-1]).to_pylist()
    for row, value in zip(described, _data(table), strict=True):
        where = f"snapshot: tensor {row['layer'][:80]!r}, {row['name'][:80]!r}"
        if (row["layer"], row["name"]) in seen:
            raise errors.InvalidInputError(f"{where}: it comes twice")
        seen.add((row["layer"], row["name"]))
        if row["dtype"] not in ITEM_BYTES:
            raise errors.InvalidInputError(
                f"{where}: dtype {row['dtype'][:40]!r} is not one of {list(ITEM_BYTES)}"
            )
        shape = row["shape"]
        if len(shape) > _MOST_DIMENSIONS or any(size < 0 for size in shape):
            raise errors.InvalidInputError(f"{where}: shape {shape[:10]} is none of a tensor")
        expected = math.prod(shape) * ITEM_BYTES[row["dtype"]]
        if (found := value.size) != expected:
            raise errors.InvalidInputError(
                f"{where}: has {found} bytes, its shape {shape} and dtype need {expected}"
            )
    return table


def from_bytes(data: bytes | pa.Buffer) -> list[Tensor]:
    """Reads a snapshot; the tensors lie in the bytes given.

    Raises:
        errors.InvalidInputError: the bytes are not such a snapshot.
    """
    table = check(data)
    described = table.select(SCHEMA.names[:-1]).to_pylist()
    return [
        Tensor(**row | {"shape": tuple(row["shape"])}, data=value)
        for row, value in zip(described, _data(table), strict=True)
    ]


def _data(table: pa.Table) -> list[pa.Buffer]:
    return [value for chunk in table.column("data").chunks for value in file_layout.values(chunk)]
