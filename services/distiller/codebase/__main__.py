"""Makes lessons of a repository, offline: `python -m services.distiller.codebase PATH`."""

from __future__ import annotations

import argparse
import asyncio
import pathlib

import rich.progress
import rich.table

from services.distiller.codebase import dataset_folder, generator
from shared import errors, settings, terminal
from shared.flight import samples


def main() -> None:
    """Parses and runs."""
    parser = argparse.ArgumentParser(
        prog="python -m services.distiller.codebase",
        description="Makes lessons of a git repository from its tree and history; asks no teacher.",
    )
    parser.add_argument("path", type=pathlib.Path, metavar="PATH", help="root of the repository")
    parser.add_argument(
        "--output", type=pathlib.Path, required=True, metavar="FOLDER", help="where to write them"
    )
    told = parser.parse_args()
    with terminal.exit_codes():
        asyncio.run(_run(told.path, told.output))


async def _run(path: pathlib.Path, output: pathlib.Path) -> None:
    codebase = settings.load().distiller.codebase
    with rich.progress.Progress(console=terminal.NOTES, transient=True) as bar:
        task = bar.add_task("reading", total=1.0)

        async def progress(share: float, detail: str) -> None:
            bar.update(task, completed=share, description=terminal.escape(detail))

        made = await generator.DatasetGenerator(codebase).generate(path, progress)
    try:
        dataset_folder.write(made, output)
    except OSError as error:
        raise errors.InvalidInputError(
            f"{output}: can't be written to ({error}); name another folder with --output"
        ) from error
    _summary(made, output)


def _summary(made: generator.Generated, output: pathlib.Path) -> None:
    card, say = made.card, terminal.RESULT.print
    table = rich.table.Table("kind", "train", "held out", box=None)
    for kind, count in card.kinds.items():
        table.add_row(kind, f"{count.train:,}", f"{count.held_out:,}")
    table.add_row("all", f"{card.samples.train:,}", f"{card.samples.held_out:,}")
    say(
        f"[bold]{terminal.escape(card.repository)}[/bold] at {card.commit[:12]}: "
        f"{card.definitions:,} definitions in {card.files:,} files, {card.lines:,} lines"
    )
    say(table)
    for what, counts in (
        ("samples left out", card.rejected),
        ("files left out", card.skipped),
        ("secrets taken out", card.removed),
    ):
        told = ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
        say(f"{what}: {terminal.escape(told or 'none')}", soft_wrap=True)
    say(f"written to {terminal.escape(str(output))}\n")
    _show(next((one for one in made.samples if one.kind == samples.Kind.WRITE), made.samples[0]))


def _show(one: samples.Sample) -> None:
    """One sample to read."""
    terminal.RESULT.print(f"[bold]{one.kind}[/bold] {terminal.escape(f'{one.path}: {one.symbol}')}")
    for text in (one.question, "———", one.output):
        # Code is not to be broken where the terminal ends.
        terminal.RESULT.print(terminal.escape(text), soft_wrap=True)


if __name__ == "__main__":
    main()
