"""`Sample`: one lesson from a code base, and the Arrow table in which a set of them travels."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence

import pyarrow as pa

from shared import errors, file_layout
from shared.flight import tables

SCHEMA = pa.schema(
    [
        pa.field("kind", pa.utf8(), nullable=False),
        pa.field("instruction", pa.utf8(), nullable=False),
        pa.field("input", pa.utf8(), nullable=False),
        pa.field("output", pa.utf8(), nullable=False),
        pa.field("path", pa.utf8(), nullable=False),
        pa.field("symbol", pa.utf8(), nullable=False),
        pa.field("language", pa.utf8(), nullable=False),
        pa.field("licence", pa.utf8(), nullable=False),
        pa.field("commit", pa.utf8(), nullable=False),
        pa.field("teacher", pa.utf8(), nullable=False),
        pa.field("held_out", pa.bool_(), nullable=False),
    ]
)
MOST_SAMPLES = 100_000
"""Of one dataset."""
BY_REPOSITORY = "repository"
"""Teacher of what was made from the tree and its history alone."""
_LAYOUT = file_layout.Layout(
    kind="samples",
    columns=tuple(name.encode() for name in SCHEMA.names),
    error=errors.InvalidInputError,
    fewest_rows=0,
    most_rows=MOST_SAMPLES,
)


class Kind(enum.StrEnum):
    """What a sample teaches."""

    EXPLAIN = "explain"
    """Code to words."""
    WRITE = "write"
    """Signature and docstring to the whole definition."""
    COMPLETE = "complete"
    """What stands before in the file to what follows: the instruction is empty, the input is the
    text before the cursor, the output what comes next."""
    REFACTOR = "refactor"
    """A definition as it was before a commit to what the commit made of it."""
    TEST = "test"
    """A definition to the test of it."""
    FIX = "fix"
    """A definition with a fault put in to the one without."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """One lesson."""

    kind: Kind
    instruction: str
    """What is asked for; empty for `Kind.COMPLETE`."""
    input: str
    """What it is asked about; may be empty."""
    output: str
    path: str
    """Of the file within the repository, with slashes."""
    symbol: str
    """Qualified name of the definition within the file, such as `Router.select`."""
    language: str
    """In lower case, such as `python`."""
    licence: str
    """SPDX identifier; empty where the repository does not say."""
    commit: str
    """Full id of the commit that the output was read at."""
    teacher: str
    """Provider and model, or `BY_REPOSITORY`."""
    held_out: bool = False
    """Kept from training, with all others of the same definition: the proof asks it."""

    @property
    def question(self) -> str:
        """What the model is asked: the instruction, and the input below it."""
        return "\n\n".join(part for part in (self.instruction, self.input) if part)


def to_bytes(samples: Sequence[Sample]) -> bytes:
    """The Arrow IPC file of a dataset; equal samples give equal bytes.

    Raises:
        errors.InvalidInputError: there are more samples than `from_bytes` accepts.
    """
    if len(samples) > MOST_SAMPLES:
        raise errors.InvalidInputError(f"samples: {len(samples)} of them; at most {MOST_SAMPLES}")
    return tables.to_bytes(samples, SCHEMA)


def check(data: bytes | pa.Buffer) -> pa.Table:
    """The table of a dataset, still in the bytes it lies in: nothing was copied or unpacked.

    Raises:
        errors.InvalidInputError: the bytes are not such a dataset.
    """
    return file_layout.read(data, _LAYOUT, SCHEMA)


def from_bytes(data: bytes | pa.Buffer) -> list[Sample]:
    """Reads a dataset.

    Raises:
        errors.InvalidInputError: the bytes are not such a dataset.
    """
    rows = check(data).to_pylist()
    try:
        return [Sample(**{**row, "kind": Kind(row["kind"])}) for row in rows]
    except ValueError as error:
        raise errors.InvalidInputError(f"samples: {error}; kinds are {', '.join(Kind)}") from error
