"""`LoRAFormat`: a card as one Arrow IPC file, read without copying or unpickling anything.

One record batch, one row per adapted module; the manifest is JSON in the schema metadata. The
digest of a card is the SHA-256 of its file.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import pathlib
import tempfile

import numpy as np
import pyarrow as pa

from shared import errors
from shared.cards import card as cards
from shared.cards import manifest as manifests

SUFFIX = ".lora.arrow"
LARGEST_FILE_BYTES = 256 * 1024 * 1024
METADATA_KEY = b"skillmesh.manifest"
_BODY_ALIGNMENT = 64

SCHEMA = pa.schema(
    [
        pa.field("module", pa.utf8(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("in_features", pa.int32(), nullable=False),
        pa.field("out_features", pa.int32(), nullable=False),
        pa.field("alpha", pa.float32(), nullable=False),
        pa.field("dtype", pa.utf8(), nullable=False),
        pa.field("lora_A", pa.large_binary(), nullable=False),
        pa.field("lora_B", pa.large_binary(), nullable=False),
    ]
)


class LoRAFormat:
    """Saves and loads cards."""

    @staticmethod
    def save(card: cards.LoRACard, path: pathlib.Path) -> str:
        """Writes a card atomically: the file is either whole or not there.

        Returns:
            The card's digest: the SHA-256 of the file in lower-case hex.
        """
        data = LoRAFormat.to_bytes(card)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                os.replace(file.name, path)
            except OSError:
                pathlib.Path(file.name).unlink(missing_ok=True)
                raise
        return hashlib.sha256(data).hexdigest()

    @staticmethod
    def to_bytes(card: cards.LoRACard) -> bytes:
        """The bytes of a card's file; equal cards give equal bytes."""
        paths = list(card.modules)
        rows = [card.modules[path] for path in paths]
        columns = [
            pa.array(paths, pa.utf8()),
            pa.array([row.rank for row in rows], pa.int32()),
            pa.array([row.in_features for row in rows], pa.int32()),
            pa.array([row.out_features for row in rows], pa.int32()),
            pa.array([row.alpha for row in rows], pa.float32()),
            pa.array([row.dtype for row in rows], pa.utf8()),
            pa.array([memoryview(row.lora_a) for row in rows], pa.large_binary()),
            pa.array([memoryview(row.lora_b) for row in rows], pa.large_binary()),
        ]
        text = card.manifest.to_json().encode()
        # Arrow aligns to 8 bytes only; padding the metadata brings the body to 64, which lets
        # vector instructions read the mapped weights.
        for padding in range(0, _BODY_ALIGNMENT, 8):
            schema = SCHEMA.with_metadata({METADATA_KEY: text + b" " * padding})
            batch = pa.record_batch(columns, schema=schema)
            data = _write(batch)
            if _body_offset(data) % _BODY_ALIGNMENT == 0:
                break
        return data

    @staticmethod
    def load(path: pathlib.Path, expected_digest: str | None = None) -> cards.LoRACard:
        """Maps a card's file and checks digest, schema, offsets, shapes and values.

        The weights stay in the mapped file: nothing is copied.

        Args:
            path: the file.
            expected_digest: refuse the file if its SHA-256 differs.

        Raises:
            errors.NotFoundError: there is no such file.
            errors.IntegrityError: the digest does not match.
            errors.CardFormatError: names what is malformed.
        """
        if not path.is_file():
            raise errors.NotFoundError(f"no card file at {path}")
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise errors.CardFormatError(
                f"{path}: {path.stat().st_size} bytes; a card has at most {LARGEST_FILE_BYTES}"
            )
        if expected_digest is not None and (found := file_digest(path)) != expected_digest:
            raise errors.IntegrityError(
                f"{path}: its SHA-256 is {found}, expected {expected_digest}; fetch it again"
            )
        with pa.memory_map(str(path), "r") as source:
            return _read(source.read_buffer(), str(path))

    @staticmethod
    def from_bytes(data: bytes | pa.Buffer, origin: str = "card") -> cards.LoRACard:
        """Reads a card from memory with the same checks as `load`."""
        return _read(pa.py_buffer(data), origin)


def file_digest(path: pathlib.Path) -> str:
    """SHA-256 of a file in lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _body_offset(data: bytes) -> int:
    """Where the weights of the only batch begin in the file."""
    buffer = pa.py_buffer(data)
    batch = pa.ipc.open_file(buffer).get_batch(0)
    return int(batch.column("lora_A").buffers()[2].address - buffer.address)


def _read(source: pa.Buffer, origin: str) -> cards.LoRACard:
    try:
        reader = pa.ipc.open_file(source)
        if not reader.schema.equals(SCHEMA, check_metadata=False):
            raise errors.CardFormatError(f"{origin}: its columns are not those of a skill card")
        if reader.num_record_batches != 1:
            raise errors.CardFormatError(
                f"{origin}: it has {reader.num_record_batches} record batches, expected 1"
            )
        batch = reader.get_batch(0)
        if not _within(batch, source):
            raise errors.CardFormatError(f"{origin}: compressed cards are refused")
        # Without the full check a file with bad offsets crashes the process that trusts it.
        batch.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise errors.CardFormatError(f"{origin}: not a readable Arrow file: {error}") from error
    metadata = (reader.schema.metadata or {}).get(METADATA_KEY)
    if metadata is None:
        raise errors.CardFormatError(f"{origin}: its schema has no {METADATA_KEY.decode()}")
    manifest = manifests.parse(metadata)
    modules = _modules(batch)
    if len(modules) != batch.num_rows:
        raise errors.CardFormatError(f"{origin}: a module appears twice")
    return cards.LoRACard(manifest, modules)


def _within(batch: pa.RecordBatch, source: pa.Buffer) -> bool:
    """Whether every column lies in the file's own bytes, which unpacked ones do not."""
    buffers = [buffer for column in batch.columns for buffer in column.buffers()]
    return all(
        source.address <= buffer.address
        and buffer.address + buffer.size <= source.address + source.size
        for buffer in buffers
        if buffer is not None and buffer.size
    )


def _modules(batch: pa.RecordBatch) -> dict[str, cards.ModuleWeights]:
    """Whole columns at a time: a card may have hundreds of modules, and nodes swap cards often."""
    paths, dtypes = (batch.column(name).to_pylist() for name in ("module", "dtype"))
    ranks, ins, outs, alphas = (
        batch.column(name).to_numpy().tolist()
        for name in ("rank", "in_features", "out_features", "alpha")
    )
    sides_a, sides_b = (_values(batch.column(name)) for name in SCHEMA.names[6:])
    rows = zip(ranks, ins, outs, alphas, dtypes, sides_a, sides_b, strict=True)
    return {path: cards.ModuleWeights(*row) for path, row in zip(paths, rows, strict=True)}


def _values(column: pa.LargeBinaryArray) -> list[pa.Buffer]:
    """Views of the values of a validated column."""
    _, offsets, values = column.buffers()
    if values is None:  # Only where every value is empty.
        return [pa.py_buffer(b"")] * len(column)
    ends = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    return [values.slice(start, end - start) for start, end in itertools.pairwise(ends.tolist())]
