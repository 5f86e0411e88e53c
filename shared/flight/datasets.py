"""`QAPair` and the Arrow table in which a set of them travels from distiller to trainer."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
from collections.abc import Sequence

import pyarrow as pa

from shared import errors, file_layout
from shared.flight import tables

SCHEMA = pa.schema(
    [
        pa.field("question", pa.utf8(), nullable=False),
        pa.field("answer", pa.utf8(), nullable=False),
        pa.field("paraphrases", pa.list_(pa.utf8()), nullable=False),
        pa.field("held_out", pa.list_(pa.utf8()), nullable=False),
        pa.field("source", pa.utf8(), nullable=False),
        pa.field("teacher", pa.utf8(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("kind", pa.utf8(), nullable=False),
        pa.field("passage", pa.utf8(), nullable=False),
    ]
)


UNASKED_SCORE = 0.5
"""Score of facts that nobody asked for: they fill a skill, and make room when it grows."""
MOST_PAIRS = 100_000
"""Of one dataset: each costs a reader far more than its bytes."""
_LAYOUT = file_layout.Layout(
    kind="dataset",
    columns=tuple(name.encode() for name in SCHEMA.names),
    error=errors.InvalidInputError,
    fewest_rows=0,
    most_rows=MOST_PAIRS,
    lists=frozenset({b"paraphrases", b"held_out"}),
)


class Kind(enum.StrEnum):
    """What a pair is there for."""

    FACT = "fact"
    """What the skill is about."""
    IMPLICATION = "implication"
    """What follows from a fact, or from several."""
    CONTRAST = "contrast"
    """A near miss: a question that looks like a fact's and has another answer."""


@dataclasses.dataclass(frozen=True)
class QAPair:
    """One fact as a question with its answer."""

    question: str
    answer: str
    paraphrases: tuple[str, ...]
    """Other wordings to train on."""
    source: str
    """Where the teacher has it from: document and place, or the teacher itself."""
    teacher: str
    """Provider and model."""
    score: float
    """How sure the distiller is of the pair, 0 to 1."""
    held_out: tuple[str, ...] = ()
    """Wordings kept from training; the gate asks them."""
    kind: Kind = Kind.FACT
    passage: str = ""
    """What the teacher had before it when it answered; empty where that is not known."""


def to_bytes(pairs: Sequence[QAPair]) -> bytes:
    """The Arrow IPC file of a dataset; equal pairs give equal bytes.

    Raises:
        errors.InvalidInputError: there are more pairs than `check` accepts.
    """
    if len(pairs) > MOST_PAIRS:
        raise errors.InvalidInputError(f"dataset: {len(pairs)} pairs; at most {MOST_PAIRS}")
    return tables.to_bytes(pairs, SCHEMA)


def check(data: bytes | pa.Buffer) -> pa.Table:
    """The table of a dataset, still in the bytes it lies in: nothing was copied or unpacked.

    Raises:
        errors.InvalidInputError: the bytes are not such a dataset.
    """
    return file_layout.read(data, _LAYOUT, SCHEMA)


def from_bytes(data: bytes | pa.Buffer) -> list[QAPair]:
    """Reads a dataset.

    Raises:
        errors.InvalidInputError: the bytes are not such a dataset.
    """
    return [
        QAPair(
            question=row["question"],
            answer=row["answer"],
            paraphrases=tuple(row["paraphrases"]),
            held_out=tuple(row["held_out"]),
            source=row["source"],
            teacher=row["teacher"],
            score=row["score"],
            kind=_kind(row["kind"]),
            passage=row["passage"],
        )
        for row in check(data).to_pylist()
    ]


def _kind(told: str) -> Kind:
    try:
        return Kind(told)
    except ValueError as error:
        raise errors.InvalidInputError(
            f"dataset: kind {told!r} is none of {', '.join(Kind)}"
        ) from error


def digest(data: bytes) -> str:
    """SHA-256 in lower-case hex: the ticket of a dataset."""
    return hashlib.sha256(data).hexdigest()
