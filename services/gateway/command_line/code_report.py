"""What was learned of a code base, as text or as JSON.

Computes nothing; see `teaching_code`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import rich.console
import rich.table

from services.gateway import domain
from shared import terminal
from shared.cards import manifest as manifests
from shared.flight import samples

_ROWS = {
    "perplexity": "perplexity on held-out samples, lowered by",
    "completions": "next words at held-out cursors, exact",
    "lines": "rests of lines there, exact",
    "known": "general questions answered as before",
}
"""What the gate's rows say, for people."""
_MOST_LINES = 30
"""Of a sample that is shown."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """All there is to tell."""

    task: domain.Task
    code_base: domain.CodeBase
    manifest: manifests.Manifest
    sample: samples.Sample
    """One to read."""


def to_read(made: Sequence[samples.Sample]) -> samples.Sample:
    """The sample that says most to a person: a short one with an instruction."""
    kinds = (samples.Kind.WRITE, samples.Kind.FIX, samples.Kind.EXPLAIN, samples.Kind.COMPLETE)

    def place(sample: samples.Sample) -> tuple[int, int]:
        rank = kinds.index(sample.kind) if sample.kind in kinds else len(kinds)
        return rank, len(sample.input) + len(sample.output)

    return min(made, key=place)


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Everything for programs."""
    manifest = outcome.manifest
    return {
        "task": outcome.task,
        "code_base": outcome.code_base,
        "card": {
            "card": outcome.task.card,
            "version": manifest.version,
            "route": manifest.route,
            "gate": [row.model_dump() for row in manifest.gate],
            "recipe": dict(manifest.lineage.recipe) if manifest.lineage else {},
        },
        "sample": outcome.sample,
        "use": list(_use(outcome)),
    }


def show(outcome: Outcome, console: rich.console.Console) -> None:
    """Prints everything for people."""
    code_base = outcome.code_base

    def say(text: str, style: str = "") -> None:
        console.print(terminal.escape(text), style=style or None, soft_wrap=True)

    say(f"learned {code_base.repository} at commit {code_base.commit_id[:12]}", "bold")
    say(f"read      {code_base.files} files, {code_base.lines:,} lines, {code_base.chunks} chunks")
    total = sum(code_base.samples.values())
    say(
        f"samples   {total} ({_counts(code_base.samples)}), {code_base.held_out} of them kept for "
        f"the proof; by {code_base.teacher}"
    )
    say(f"rejected  {_counts(code_base.rejected)}")
    say(f"secrets   {_counts(code_base.removed)} taken out")
    say(f"left out  {_counts(code_base.skipped)}")
    say(f"dataset   {code_base.folder}")
    stages = ", ".join(f"{time.stage} {time.seconds:.1f} s" for time in outcome.task.stage_times)
    say(f"times     {stages}")
    say("\nWhat the proof measured", "bold")
    console.print(_gate(outcome.manifest.gate))
    say("\nOne of the samples", "bold")
    _show_sample(outcome.sample, say)
    say("\nHow to use it", "bold")
    for line in _use(outcome):
        say(f"  {line}")


def _gate(rows: Sequence[manifests.GateRow]) -> rich.table.Table:
    table = rich.table.Table("what", "reached", "needed", "")
    for row in rows:
        share = f"{row.right / row.asked:.0%}" if row.asked else "nothing asked"
        if row.asked and row.name != "perplexity":  # Whose thousandths are no questions.
            share += f" ({row.right} of {row.asked})"
        mark = "[green]✔[/green]" if row.passed else "[red]✘[/red]"
        table.add_row(
            terminal.escape(_ROWS.get(row.name, row.name)), share, f"{row.required:.0%}", mark
        )
    return table


def _show_sample(sample: samples.Sample, say: Any) -> None:
    say(f"{sample.kind.value}, {sample.path}, {sample.symbol}", "dim")
    for text in (sample.question, sample.output):
        lines = text.splitlines()
        for line in lines[:_MOST_LINES]:
            say(f"  {line}")
        if len(lines) > _MOST_LINES:
            say(f"  … {len(lines) - _MOST_LINES} more lines")
        say("  ---" if text is sample.question else "")


def _use(outcome: Outcome) -> tuple[str, ...]:
    name = outcome.manifest.name
    return (
        "skillmesh.v1.Inference/Complete with prefix, suffix and path goes to it first",
        "skillmesh.v1.Inference/Generate with model "
        f"{manifests.SPECIALIST_LOCAL} or {name} asks it for a fix, a test or an explanation",
        "docs/code-base.md tells how, with examples",
    )


def _counts(found: dict[str, int]) -> str:
    told = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{count} {name}" for name, count in told) or "none"
