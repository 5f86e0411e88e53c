"""`LoRAFormat`: a card as one Arrow IPC file, read without copying or unpickling anything.

One record batch, one row per adapted module; the manifest is JSON in the schema metadata. The
digest of a card is the SHA-256 of its file.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import tempfile

import pyarrow as pa

from shared import errors, file_layout
from shared.cards import card as cards
from shared.cards import manifest as manifests

SUFFIX = ".lora.arrow"
LARGEST_FILE_BYTES = 256 * 1024 * 1024
METADATA_KEY = b"skillmesh.manifest"
_BODY_ALIGNMENT = 64
_MOST_TEXT_BYTES = {"module": 8 * 1024 * 1024, "dtype": 256 * 1024}
"""Of all values of a column together: texts become Python's, while the weights stay in the file."""

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
LAYOUT = file_layout.Layout(
    kind="card",
    columns=tuple(name.encode() for name in SCHEMA.names),
    error=errors.CardFormatError,
    fewest_rows=1,
    most_rows=cards.MOST_MODULES,
    most_metadata=1,
    most_footer_bytes=manifests.MOST_BYTES + file_layout.COLUMNS_FOOTER_BYTES,
    footer="manifest: the footer that holds it",
)


class LoRAFormat:
    """Saves and loads cards."""

    @staticmethod
    def save(card: cards.LoRACard, path: pathlib.Path) -> str:
        """Writes a card atomically: the file is either whole or not there.

        Returns:
            The card's digest: the SHA-256 of the file in lower-case hex.

        Raises:
            errors.CardFormatError: the file would be larger than `load` accepts.
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
        """The bytes of a card's file; equal cards give equal bytes.

        Raises:
            errors.CardFormatError: they would be more than `load` accepts.
        """
        _check_size(card.size_bytes, f"card {card.name}")
        text = card.manifest.to_json().encode()
        manifests.check_size(text + b" " * _BODY_ALIGNMENT)
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
        _check_texts(dict(zip(SCHEMA.names, columns, strict=True)), f"card {card.name}")
        # Arrow aligns to 8 bytes only; padding the metadata brings the body to 64, which lets
        # vector instructions read the mapped weights.
        for padding in range(0, _BODY_ALIGNMENT, 8):
            schema = SCHEMA.with_metadata({METADATA_KEY: text + b" " * padding})
            batch = pa.record_batch(columns, schema=schema)
            data = _write(batch)
            if _body_offset(data) % _BODY_ALIGNMENT == 0:
                break
        _check_size(len(data), f"card {card.name}")
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
        _check_size(path.stat().st_size, str(path))
        if expected_digest is not None and (found := file_digest(path)) != expected_digest:
            raise errors.IntegrityError(
                f"{path}: its SHA-256 is {found}, expected {expected_digest}; fetch it again"
            )
        with pa.memory_map(str(path), "r") as source:
            return _read(source.read_buffer(), str(path))

    @staticmethod
    def from_bytes(data: bytes | pa.Buffer, origin: str = "card") -> cards.LoRACard:
        """Reads a card from memory with the same checks as `load`.

        Raises:
            errors.CardFormatError: names what is malformed.
        """
        _check_size(len(data), origin)
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


def _check_size(size_bytes: int, origin: str) -> None:
    if size_bytes > LARGEST_FILE_BYTES:
        raise errors.CardFormatError(
            f"{origin}: {size_bytes} bytes; a card has at most {LARGEST_FILE_BYTES}"
        )


def _read(source: pa.Buffer, origin: str) -> cards.LoRACard:
    file_layout.check(source, LAYOUT, origin)
    try:
        reader = pa.ipc.open_file(source)
        schema = reader.schema
        if not schema.equals(SCHEMA, check_metadata=False):
            raise errors.CardFormatError(f"{origin}: its columns are not those of a skill card")
        batch = reader.get_batch(0)
        # Without the full check a file with bad offsets crashes the process that trusts it.
        batch.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise errors.CardFormatError(f"{origin}: not a readable Arrow file: {error}") from error
    metadata = (schema.metadata or {}).get(METADATA_KEY)
    if metadata is None:
        raise errors.CardFormatError(f"{origin}: its schema has no {METADATA_KEY.decode()}")
    manifest = manifests.parse(metadata)
    modules = _modules(batch, origin)
    if len(modules) != batch.num_rows:
        raise errors.CardFormatError(f"{origin}: a module appears twice")
    return cards.LoRACard(manifest, modules)


def _modules(batch: pa.RecordBatch, origin: str) -> dict[str, cards.ModuleWeights]:
    """Whole columns at a time: a card may have hundreds of modules, and nodes swap cards often."""
    columns = dict(zip(SCHEMA.names, batch.columns, strict=True))
    for name, column in columns.items():
        if column.null_count:
            raise errors.CardFormatError(
                f"{origin}: field {name}: {column.null_count} of its values are null"
            )
    _check_texts(columns, origin)
    paths, dtypes = columns["module"].to_pylist(), columns["dtype"].to_pylist()
    ranks, ins, outs, alphas = (
        columns[name].to_numpy().tolist()
        for name in ("rank", "in_features", "out_features", "alpha")
    )
    sides_a, sides_b = file_layout.values(columns["lora_A"]), file_layout.values(columns["lora_B"])
    rows = zip(ranks, ins, outs, alphas, dtypes, sides_a, sides_b, strict=True)
    return dict(zip(paths, map(cards.ModuleWeights._make, rows), strict=True))


def _check_texts(columns: dict[str, pa.Array], origin: str) -> None:
    for name, most in _MOST_TEXT_BYTES.items():
        values = columns[name].buffers()[2]
        if values is not None and values.size > most:
            raise errors.CardFormatError(
                f"{origin}: field {name}: its values have {values.size} bytes; at most {most}"
            )
