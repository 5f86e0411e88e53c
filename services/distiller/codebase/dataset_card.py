"""What a dataset is made of, for people and programs: counts, licences, digests, what was left out.

Knows nothing about how samples are made, nor where they are put.
"""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence

from services.distiller.codebase import extraction, formats
from services.distiller.codebase.lessons import verdicts
from shared.flight import samples

_UNSTATED = "unstated"


@dataclasses.dataclass(frozen=True)
class Count:
    """How many samples are trained on, and how many are held out."""

    train: int = 0
    held_out: int = 0


@dataclasses.dataclass(frozen=True)
class Card:
    """The dataset card."""

    repository: str
    """Name of its folder."""
    commit: str
    licence: str
    """SPDX expression of the repository; empty where it does not say."""
    files: int
    """That were read,"""
    lines: int
    """their lines,"""
    definitions: int
    """and what was found in them."""
    uncommitted: int
    """Definitions left out because the commit does not hold them so."""
    samples: Count
    definitions_taught: Count
    kinds: dict[str, Count]
    languages: dict[str, Count]
    licences: dict[str, Count]
    teachers: dict[str, Count]
    rejected: dict[str, int]
    """Samples that were not fit to be taught, by reason."""
    skipped: dict[str, int]
    """Files that were left out, by reason."""
    removed: dict[str, int]
    """Secrets that were taken out, by kind."""
    asked: int
    """Definitions that were sent to a teacher."""
    withheld: dict[str, int]
    """Definitions that were not sent, by reason."""
    unanswered: dict[str, int]
    """Definitions to which no usable answer came, by error."""
    held_out_share: float
    """Of the definitions, as it was asked for."""
    digests: dict[str, str] = dataclasses.field(default_factory=dict)
    """SHA-256 of each file of the dataset, in hexadecimal."""


def made_of(
    name: str,
    found: extraction.Extraction,
    uncommitted: int,
    made: Sequence[samples.Sample],
    rejected: Iterable[verdicts.Rejected],
    held_out_share: float,
) -> Card:
    """The card of samples, of which nothing was asked of a teacher, before they are files.

    Args:
        name: of the repository.
        found: what was read of it.
        uncommitted: definitions that its commit does not hold so.
        made: the samples.
        rejected: what became none.
        held_out_share: as in the settings.
    """
    definitions = {(one.path, one.symbol): one for one in made}
    return Card(
        repository=name,
        commit=found.commit,
        licence=found.licence,
        files=found.files,
        lines=found.lines,
        definitions=len(found.chunks),
        uncommitted=uncommitted,
        samples=_count(made),
        definitions_taught=_count(list(definitions.values())),
        kinds=_by(made, "kind", list(samples.Kind)),
        languages=_by(made, "language"),
        licences=_by(made, "licence"),
        teachers=_by(made, "teacher"),
        rejected=verdicts.counts(rejected),
        skipped=_counted(one.reason for one in found.skipped),
        removed=_counted(one.kind for one in found.removed),
        asked=0,
        withheld={},
        unanswered={},
        held_out_share=held_out_share,
    )


def to_json(card: Card) -> bytes:
    """The card for programs."""
    return (json.dumps(dataclasses.asdict(card), ensure_ascii=False, indent=2) + "\n").encode()


def to_markdown(card: Card) -> bytes:
    """The card for people; its head says to the `datasets` library which files are what."""
    parts = [
        _head(),
        f"# Lessons from {_plain(card.repository)}",
        f"{card.samples.train:,} samples to train on and {card.samples.held_out:,} held out, made "
        f"of {card.definitions:,} definitions in {card.files:,} files ({card.lines:,} lines) at "
        f"commit `{card.commit}`. Licence of the repository: {_plain(card.licence) or _UNSTATED}.",
        f"Held out are {card.held_out_share:.0%} of the definitions, with all samples of each: "
        f"{card.definitions_taught.held_out:,} beside {card.definitions_taught.train:,} to train "
        "on. Samples that share a long run of tokens with them were left out.",
        _table("kind", card.kinds),
        _table("language", card.languages),
        _table("licence", card.licences),
        _table("made by", card.teachers),
        _left_out("Samples left out", card.rejected),
        _left_out("Files left out", card.skipped),
        _left_out("Secrets taken out", card.removed),
        _left_out("Definitions not sent to a teacher", card.withheld),
        _left_out("Definitions without a usable answer", card.unanswered),
        _digests(card.digests),
    ]
    return ("\n\n".join(part for part in parts if part) + "\n").encode()


def file_name(form: formats.Format, held_out: bool) -> str:
    """Where the rows of a form lie."""
    return f"{form}.{'held_out' if held_out else 'train'}.jsonl"


def _head() -> str:
    lines = ["---", "configs:"]
    for form in formats.Format:
        lines += [f"- config_name: {form}", "  data_files:"]
        for split, held_out in (("train", False), ("test", True)):
            lines += [f"  - split: {split}", f"    path: {file_name(form, held_out)}"]
    return "\n".join([*lines, "---"])


def _count(some: Sequence[samples.Sample]) -> Count:
    held_out = sum(one.held_out for one in some)
    return Count(len(some) - held_out, held_out)


def _by(made: Sequence[samples.Sample], field: str, order: Sequence[str] = ()) -> dict[str, Count]:
    groups: dict[str, list[samples.Sample]] = {name: [] for name in order}
    for one in made:
        groups.setdefault(str(getattr(one, field)), []).append(one)
    names = [*order, *sorted(groups.keys() - set(order))]
    return {name or _UNSTATED: _count(groups[name]) for name in names if groups[name]}


def _counted(reasons: Iterable[str]) -> dict[str, int]:
    return dict(sorted(collections.Counter(reasons).items(), key=lambda one: (-one[1], one[0])))


def _table(what: str, counts: Mapping[str, Count]) -> str:
    rows = [
        f"| {_plain(name)} | {one.train:,} | {one.held_out:,} |" for name, one in counts.items()
    ]
    return "\n".join([f"| {what} | train | held out |", "| --- | --: | --: |", *rows])


def _left_out(what: str, counts: Mapping[str, int]) -> str:
    told = ", ".join(f"{count:,} {_plain(reason)}" for reason, count in counts.items())
    return f"{what}: {told}." if told else ""


def _digests(digests: Mapping[str, str]) -> str:
    rows = [f"| `{name}` | `{digest}` |" for name, digest in digests.items()]
    return "\n".join(["| file | SHA-256 |", "| --- | --- |", *rows]) if rows else ""


def _plain(text: str) -> str:
    """Text of a repository, which must not become a table or a link here."""
    return "".join(
        f"\\{sign}" if sign in "\\`*_[]|<>#" else sign for sign in " ".join(text.split())
    )
