"""Rows as the Arrow IPC file in which they travel."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pyarrow as pa


def to_bytes(rows: Sequence[Any], schema: pa.Schema) -> bytes:
    """One file with one record batch; equal rows give equal bytes.

    Args:
        rows: dataclasses whose fields are the schema's columns.
        schema: of the table.
    """
    table = pa.Table.from_pylist(
        [dataclasses.asdict(row) for row in rows], schema=schema
    ).combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
