"""What trainings and proofs return, and how it is kept on disk."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Generic, TypeVar

import pydantic

from services.trainer import gate
from shared import atomic
from shared.cards import manifest as manifests

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Trained:
    """A draft card on this machine."""

    draft_digest: str
    draft_bytes: int
    steps: int
    final_loss: float
    trained_right: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class GateRow:
    """One row of the gate's table."""

    name: str
    right: int
    asked: int
    required: float
    passed: bool


@dataclasses.dataclass(frozen=True)
class Proved:
    """What the gate found; the sealed card lies in the card store, uncommitted, if it passed."""

    passed: bool
    rows: tuple[GateRow, ...]
    card_digest: str
    """Empty if the draft did not pass."""
    card_bytes: int
    seconds: float
    signature_json: str = ""
    """DSSE envelope over the card, if the draft passed."""
    curable: bool = False
    """Whether another training may pass, if this draft did not."""
    wrong: tuple[str, ...] = ()
    """Questions of the dataset that the draft answered wrong."""


@dataclasses.dataclass(frozen=True)
class PublishedCard:
    """A card in the store with what it was trained on."""

    card_digest: str
    dataset_digest: str


@dataclasses.dataclass(frozen=True)
class Proof:
    """What a proof is about: another one has other results."""

    dataset_digest: str
    draft_digest: str
    triggers: tuple[gate.Trigger, ...]
    previous: PublishedCard | None
    rewriting: float | None
    """See `Workshop`."""


@dataclasses.dataclass(frozen=True)
class Kept(Generic[T]):
    """A result on disk."""

    of: Proof
    result: T


@dataclasses.dataclass(frozen=True)
class Rechecked:
    """The gate's table for a published card: now, and as its manifest has it."""

    rows: tuple[GateRow, ...]
    recorded: tuple[GateRow, ...]


def table(rows: Iterable[gate.Row | manifests.GateRow]) -> tuple[GateRow, ...]:
    """The gate's table as it is told."""
    return tuple(GateRow(row.name, row.right, row.asked, row.required, row.passed) for row in rows)


def keep(path: pathlib.Path, kind: type[T], value: T) -> None:
    """Writes a result as JSON, atomically."""
    atomic.write(path, pydantic.TypeAdapter(kind).dump_json(value))


def kept(path: pathlib.Path, kind: type[T]) -> T | None:
    """Reads what was kept; None where nothing was, or something else."""
    try:
        return pydantic.TypeAdapter(kind).validate_json(path.read_bytes())
    except (FileNotFoundError, pydantic.ValidationError):
        return None
