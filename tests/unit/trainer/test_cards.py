"""The tools' command line, from files to files."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest
import torch
import typer.testing

from services.trainer import cards as tools
from shared import settings as config
from shared.cards import format as formats
from shared.cards import peft_layout
from shared.models import base as bases
from tests import tiny_model


@pytest.fixture(autouse=True)
def models(monkeypatch, tmp_path):
    """`embedded` and `tuned`, without reading a file."""

    def load(name: str, revision: str = "") -> bases.BaseModel:
        made = dataclasses.replace(
            tiny_model.tiny_base(0), id=name, revision=revision or bases.DEFAULT_REVISION
        )
        if name == "tuned":
            torch.manual_seed(1)
            with torch.no_grad():
                for path, layer in made.model.named_modules():
                    if path.endswith("q_proj"):
                        layer.weight += torch.randn(32, 2) @ torch.randn(2, 32) * 0.1
        return made

    monkeypatch.setattr(bases, "load", load)
    monkeypatch.chdir(tmp_path)  # Where no config.yaml lies.
    monkeypatch.delenv(config.CONFIG_VARIABLE, raising=False)


@pytest.fixture
def files(tmp_path) -> list[str]:
    base = tiny_model.tiny_base(0)
    found = []
    for seed in (1, 2):
        path = tmp_path / f"card-{seed}.lora.arrow"
        formats.LoRAFormat.save(tiny_model.card_for(base, f"card-{seed}", seed=seed), path)
        found.append(str(path))
    return found


def _run(*arguments: object) -> typer.testing.Result:
    return typer.testing.CliRunner().invoke(tools.app, [str(one) for one in arguments])


def _told(*arguments: object) -> dict:
    result = _run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize(("method", "rank"), [("linear", 4), ("svd", 2), ("ties", 2), ("dare", 2)])
def test_cards_are_merged_when_they_have_one_base(files, tmp_path, method: str, rank: int):
    out = tmp_path / "both.lora.arrow"
    told = _told("merge", *files, "--out", out, "--method", method, "--weights", "0.7,0.3")
    card = formats.LoRAFormat.load(out, told["digest"])
    assert (card.name, card.rank, told["rank"]) == ("both", rank, rank)
    assert "card-1, card-2" in card.manifest.description
    assert 0.0 < told["least_energy"] <= 1.0


def test_card_is_extracted_when_a_model_was_changed(tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("Who built it?\n\nHow tall is it?\n")
    out = tmp_path / "q.lora.arrow"
    told = _told("extract", "tuned", "--out", out, "--rank", 2, "--prompts", prompts)
    assert told["energy"] == pytest.approx(1.0, abs=1e-4)
    assert told["kl_nats_a_token"] == pytest.approx(0.0, abs=1e-4)
    assert {row["rank"] for row in told["ranks"]} == {2} and told["left_out"] == []
    assert formats.LoRAFormat.load(out).target_modules == ("q_proj",)


@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16"])
def test_the_extracted_card_keeps_the_dtype_that_was_asked_for(tmp_path, dtype: str | None):
    out = tmp_path / "q.lora.arrow"
    _told("extract", "tuned", "--out", out, *([] if dtype is None else ["--dtype", dtype]))
    found = {weights.dtype for _, weights in formats.LoRAFormat.load(out)}
    assert found == {dtype or "float16"}


def test_hot_modules_are_named_and_drawn_when_a_model_is_probed(tmp_path):
    prompts, plot = tmp_path / "prompts.txt", tmp_path / "plots" / "heat.png"
    prompts.write_text("Who built it?\n")
    told = _told("probe", prompts, "--gradient", "--plot", plot, "--mean-rank", 4)
    assert sum(told["ranks"].values()) == 4 * len(told["ranks"])
    assert {path.rpartition(".")[2] for path in told["ranks"]} == set(told["target_modules"])
    assert told["ranks"].keys() < {row["path"] for row in told["modules"]}
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_what_the_probe_prints_is_a_recipe_when_it_is_put_into_the_configuration(tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("Who built it?\n")
    options = ("--base", "acme/base: small", "--mean-rank", 4)
    shown = _run("probe", prompts, *options)
    assert shown.exit_code == 0
    fragment = shown.stdout[shown.stdout.index("model:\n") :]
    (tmp_path / "config.yaml").write_text(fragment + "  base: 'acme/base: small'\n")
    recipe = config.load().model.recipe()
    told = _told("probe", prompts, *options)
    assert recipe.target_modules == tuple(told["target_modules"])
    found = {
        path: recipe.ranks.get(path) or recipe.ranks[path.rpartition(".")[2]]
        for path in told["ranks"]
    }
    assert found == told["ranks"] and len(recipe.ranks) <= len(found)


def test_card_is_the_same_when_it_went_out_and_in(files, tmp_path):
    folder, out = tmp_path / "peft", tmp_path / "back.lora.arrow"
    _told("export", files[0], folder)
    told = _told("import", folder, "--out", out, "--base", "embedded", "--name", "back")
    before, after = formats.LoRAFormat.load(pathlib.Path(files[0])), formats.LoRAFormat.load(out)
    assert told["modules"] == len(before.modules) and after.name == "back"
    for path, weights in before:
        assert after.modules[path].lora_a.equals(weights.lora_a)
        assert after.modules[path].scale == weights.scale


@pytest.fixture
def adapter(files, tmp_path) -> pathlib.Path:
    """A PEFT directory of the base model `acme/base` at the revision `v2`."""
    folder = tmp_path / "peft"
    _told("export", files[0], folder)
    _rewritten(folder, base_model_name_or_path="acme/base", revision="v2")
    return folder


def _rewritten(folder: pathlib.Path, **fields: object) -> None:
    path = folder / peft_layout.CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    ("options", "expected", "warned"),
    [
        ([], ("acme/base", "v2"), ()),
        (["--base", "acme/base"], ("acme/base", "v2"), ()),
        (["--revision", "v2"], ("acme/base", "v2"), ()),
        (["--revision", "v3"], ("acme/base", "v3"), ("v2", "v3")),
        # The revision of one repository says nothing about another, or about a folder.
        (["--base", "other/copy"], ("other/copy", "main"), ()),
        (["--base", "other/copy", "--revision", "v9"], ("other/copy", "v9"), ()),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_card_is_made_for_the_revision_that_the_adapter_names(
    adapter, tmp_path, options: list[str], expected: tuple[str, str], warned: tuple[str, ...]
):
    out = tmp_path / "back.lora.arrow"
    result = _run("import", adapter, "--out", out, *options, "--json")
    assert result.exit_code == 0, result.output
    made_for = formats.LoRAFormat.load(out).manifest.base_model
    told = json.loads(result.stdout)
    assert (made_for.id, made_for.revision) == expected == (told["base"], told["revision"])
    assert bool(warned) == ("warning: " in result.stderr)
    assert all(revision in result.stderr for revision in warned)


def test_a_card_is_made_for_the_default_revision_when_the_adapter_names_none(adapter, tmp_path):
    _rewritten(adapter, revision=None)
    told = _told("import", adapter, "--out", tmp_path / "back.lora.arrow")
    assert told["revision"] == "main"


@pytest.mark.parametrize(
    ("configured", "warned"),
    [
        ("{base: acme/base, revision: v2}", False),
        ("{base: acme/base, revision: v1}", True),
        ("{base: acme/base}", True),
        ("{base: embedded}", False),
    ],
)
def test_both_revisions_are_named_when_the_cluster_runs_another(
    adapter, tmp_path, configured: str, warned: bool
):
    (tmp_path / "config.yaml").write_text(f"model: {configured}\n")
    result = _run("import", adapter, "--out", tmp_path / "back.lora.arrow")
    assert result.exit_code == 0
    assert ("warning: model.revision" in result.stderr) == warned
    assert ("v2" in result.stderr) == warned


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["merge", "missing.lora.arrow", "--out", "x"], "missing.lora.arrow"),
        (["merge", "{card}", "--out", "x", "--weights", "a"], "weights 'a'"),
        (["merge", "{card}", "--out", "x", "--density", "0", "--method", "ties"], "density"),
        (["extract", "tuned", "--out", "x", "--kinds", "nothing"], "nothing"),
        (["extract", "tuned", "--out", "x", "--dtype", "int8"], "int8"),
        (["probe", "missing.txt"], "missing.txt"),
        (["import", "missing", "--out", "x", "--base", "embedded"], "missing"),
    ],
)
def test_input_is_named_when_it_is_refused(files, arguments: list[str], named: str):
    result = _run(*[one.format(card=files[0]) for one in arguments])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ") and named in result.stderr
    assert result.stderr.count("\n") == 1
