"""Writes a dataset into a folder: the three forms, the Arrow table, the card, what was rejected."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib

from services.distiller.codebase import dataset_card, formats, generator
from services.distiller.codebase.lessons import verdicts
from shared import atomic
from shared.flight import samples

TABLE, REJECTED, CARD, README = "samples.arrow", "rejected.jsonl", "dataset_card.json", "README.md"


def files(made: generator.Generated) -> dict[str, bytes]:
    """The files of a dataset by name, the card last, with the digests of the others in it."""
    found = {TABLE: samples.to_bytes(made.samples)}
    for form in formats.Format:
        for held_out in (False, True):
            rows = [one for one in made.samples if one.held_out == held_out]
            found[dataset_card.file_name(form, held_out)] = formats.to_jsonl(form, rows)
    found[REJECTED] = verdicts.to_jsonl(made.report.rejected)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in found.items()}
    card = dataclasses.replace(made.card, digests=digests)
    return found | {
        README: dataset_card.to_markdown(card),
        CARD: dataset_card.to_json(card),
    }


def write(made: generator.Generated, folder: pathlib.Path) -> dict[str, bytes]:
    """Writes the files, each whole or not at all; the card, written last, says that all are there.

    Returns:
        What was written, by name.

    Raises:
        OSError: the folder can't be written to.
    """
    found = files(made)
    for name, data in found.items():
        atomic.write(folder / name, data)
    return found
