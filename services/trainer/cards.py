"""`python -m services.trainer.cards merge|extract|probe|export|import`: tools for cards.

The command line over `shared.lora.algebra`, `extractor`, `probe` and `shared.cards.peft_layout`.
Results go to stdout, as JSON where `--json` asks for it; a refused input is one line on stderr.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import rich.console
import rich.table
import typer
import yaml

from services.trainer import extractor, heat_plot, probe
from shared import errors, terminal
from shared import settings as config
from shared.cards import card as cards
from shared.cards import format as formats
from shared.cards import manifest as manifests
from shared.cards import peft_layout
from shared.lora import algebra, tensors
from shared.models import base as bases

_SHOWN_MODULES = 20
_DTYPES = f"Of the card's weights: {', '.join(tensors.DTYPES)}."
_console = rich.console.Console(highlight=False)
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Merge, extract, export and import skill cards; probe a model.",
)

Path = pathlib.Path
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Out = Annotated[Path, typer.Option(help="Card file to write.")]
Name = Annotated[str, typer.Option(help="Of the card; by default from the file's.")]
Base = Annotated[str, typer.Option(help="Path or id of the base model.")]
Seed = Annotated[int, typer.Option(help="Of everything random.")]


@app.command()
def merge(
    parts: Annotated[list[Path], typer.Argument(help="Card files of one base model.")],
    out: Out,
    method: algebra.Method = algebra.Method.LINEAR,
    weights: Annotated[str, typer.Option(help="One for each card, with commas between.")] = "",
    rank: Annotated[int, typer.Option(help="Of the result; 0: the highest of the cards.")] = 0,
    density: Annotated[float, typer.Option(help="Share that TIES and DARE keep.")] = 0.5,
    seed: Seed = 0,
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Make one card of several."""
    with terminal.exit_codes():
        found = [formats.LoRAFormat.load(path) for path in parts]
        recipe = algebra.Recipe(
            method=method,
            weights=_numbers(weights),
            rank=rank or None,
            density=density,
            seed=seed,
        )
        merged = algebra.merge(found, recipe)
        told = f"{', '.join(card.name for card in found)}, merged by {method.value}"
        first = found[0].manifest
        card = merged.to_card(_manifest(name, out, first.base_model, told, first.domain))
        _save(card, out, as_json, {"least_energy": min(merged.energy.values())})


@app.command()
def extract(
    tuned: Annotated[str, typer.Argument(help="Path or id of the changed model.")],
    out: Out,
    base: Base = bases.EMBEDDED,
    rank: Annotated[int, typer.Option(help="The highest of a module.")] = 16,
    energy: Annotated[float, typer.Option(help="Share of the change to keep.")] = 1.0,
    kinds: Annotated[str, typer.Option(help="Of modules.")] = ",".join(extractor.Recipe.kinds),
    randomised: Annotated[bool, typer.Option(help="The fast decomposition.")] = False,
    dtype: Annotated[str, typer.Option(help=_DTYPES)] = extractor.Recipe.dtype,
    prompts: Annotated[
        Path | None, typer.Option(help="A prompt a line: measure the divergence, too.")
    ] = None,
    seed: Seed = 0,
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Make a card of what a model has more than its base."""
    with terminal.exit_codes():
        recipe = extractor.Recipe(
            kinds=tuple(kinds.split(",")),
            rank=rank,
            energy=energy,
            randomised=randomised,
            seed=seed,
            dtype=dtype,
        )
        before, after = bases.load(base), bases.load(tuned)
        extraction = extractor.LoRAExtractor(recipe).delta(before.model, after.model)
        told = f"What {tuned} has more than {base}"
        card = extraction.to_card(_manifest(name, out, _reference(before), told))
        found: dict[str, Any] = {
            "energy": extraction.energy,
            "relative_error": extraction.error,
            "ranks": [dataclasses.asdict(row) for row in extraction.report],
            "left_out": list(extraction.left_out),
        }
        if prompts:
            found["kl_nats_a_token"] = extractor.remaining_divergence(
                before, after, card, _lines(prompts)
            )
        _save(card, out, as_json, found)


@app.command("probe")
def probe_model(
    prompts: Annotated[Path, typer.Argument(help="Text file with a prompt a line.")],
    base: Base = bases.EMBEDDED,
    gradient: Annotated[bool, typer.Option(help="Measure the loss's gradient, too.")] = False,
    share: Annotated[float, typer.Option(help="Of modules that count as hot.")] = 0.25,
    mean_rank: Annotated[int, typer.Option(help="To share out by heat.")] = 8,
    plot: Annotated[Path | None, typer.Option(help="PNG to write.")] = None,
    as_json: Json = False,
) -> None:
    """Tell which modules of a model matter for some prompts."""
    with terminal.exit_codes():
        found = probe.WeightMapProbe(bases.load(base)).measure(_lines(prompts), gradient)
        targets = found.target_modules(share)
        ranks = found.ranks(mean_rank, targets)
        if plot:
            heat_plot.save(found, plot)
        if as_json:
            modules = [dataclasses.asdict(row) for row in found.rows]
            _print_json({"target_modules": targets, "ranks": ranks, "modules": modules})
            return
        table = rich.table.Table("module", "heat", "wanda", "snip", "rank")
        for row in found.hot(1.0)[:_SHOWN_MODULES]:
            snip = "" if row.snip is None else f"{row.snip:.3g}"
            heat, wanda = f"{row.heat:.2f}", f"{row.wanda:.3g}"
            table.add_row(row.path, heat, wanda, snip, str(ranks.get(row.path, "")))
        _console.print(table)
        sys.stdout.write("# For config.yaml, beside what it says already:\n")
        sys.stdout.write(_recipe(base, targets, ranks))


@app.command()
def export(
    card: Annotated[Path, typer.Argument(help="Card file.")],
    folder: Annotated[Path, typer.Argument(help="PEFT directory to write.")],
    as_json: Json = False,
) -> None:
    """Write a card as a PEFT directory."""
    with terminal.exit_codes():
        found = formats.LoRAFormat.load(card)
        peft_layout.export(found, folder)
        _tell({"folder": str(folder), "modules": len(found.modules)}, as_json)


@app.command("import")
def import_adapter(
    folder: Annotated[Path, typer.Argument(help="PEFT directory to read.")],
    out: Out,
    base: Annotated[str, typer.Option(help="By default what the directory names.")] = "",
    revision: Annotated[str, typer.Option(help="Of the base; default as for --base.")] = "",
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Make a card of a PEFT directory."""
    with terminal.exit_codes():
        adapter = peft_layout.read(folder)
        chosen = base or adapter.base_model_id
        if not chosen:
            raise errors.InvalidInputError(f"{folder} names no base model; give one with --base")
        # The revision of one model says nothing about another.
        named = adapter.revision if chosen == adapter.base_model_id else ""
        if revision and named and revision != named:
            _warn(f"{folder} was made for revision {named} of {chosen}, the card is for {revision}")
        reference = _reference(bases.load(chosen, revision or named))
        _warn_of_another_revision(reference)
        manifest = _manifest(name, out, reference, f"Imported from {folder.name}")
        told = {"base": reference.id, "revision": reference.revision}
        _save(peft_layout.to_card(adapter, manifest), out, as_json, told)


def _warn_of_another_revision(made_for: manifests.BaseModelReference) -> None:
    """Says so if this cluster runs the base of a card at another revision."""
    model = config.load().model
    runs = model.revision or bases.DEFAULT_REVISION
    if model.base == made_for.id and runs != made_for.revision:
        _warn(
            f"model.revision is {runs}, the card is for revision {made_for.revision} of "
            f"{made_for.id}; a cluster so configured refuses it, unless the weights are the same"
        )


def _warn(text: str) -> None:
    sys.stderr.write(f"warning: {text}\n")


def _save(card: cards.LoRACard, out: Path, as_json: bool, found: dict[str, Any]) -> None:
    digest = formats.LoRAFormat.save(card, out)
    told = {"file": str(out), "digest": digest, "bytes": out.stat().st_size}
    _tell({**told, "rank": card.rank, "modules": len(card.modules), **found}, as_json)


def _tell(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(found)
        return
    for name, value in found.items():
        shown = len(value) if isinstance(value, list) else value
        text = f"{shown:.6g}" if isinstance(shown, float) else str(shown)
        _console.print(f"{name:<16} {text}", soft_wrap=True, markup=False)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def _manifest(
    name: str,
    out: Path,
    base_model: manifests.BaseModelReference,
    description: str,
    domain: str = "",
) -> manifests.Manifest:
    return manifests.Manifest(
        name=name or manifests.slug(out.name.partition(".")[0]),
        version="0.1.0",
        base_model=base_model,
        target_modules=(),
        domain=domain,
        description=description,
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _reference(base: bases.BaseModel) -> manifests.BaseModelReference:
    return manifests.BaseModelReference(
        id=base.id, revision=base.revision, fingerprint=base.fingerprint
    )


def _recipe(base: str, targets: Sequence[str], ranks: Mapping[str, int]) -> str:
    """YAML of `model.recipes`: each kind's commonest rank, and the paths that have another."""
    short: dict[str, int] = {}
    for kind in targets:
        own = {path: rank for path, rank in ranks.items() if path.rpartition(".")[2] == kind}
        short[kind] = statistics.mode(own.values())
        short |= {path: rank for path, rank in own.items() if rank != short[kind]}
    recipe = {"target_modules": list(targets), "ranks": short}
    return yaml.safe_dump({"model": {"recipes": {base: recipe}}}, sort_keys=False)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise errors.InvalidInputError(
            f"weights {text!r}: expected numbers like 0.5,0.5"
        ) from error


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise errors.InvalidInputError(f"prompts {path}: {error}") from error
    return [line.strip() for line in lines if line.strip()]


if __name__ == "__main__":
    app()
