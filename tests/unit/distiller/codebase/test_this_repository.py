"""The lessons of this very repository, made offline, and each of them looked up in its commit."""

from __future__ import annotations

import ast
import asyncio
import collections
import hashlib
import io
import json
import pathlib
import subprocess
import tarfile
from typing import Any

import pytest

from services.distiller.codebase import (
    dataset_card,
    dataset_folder,
    formats,
    generator,
    languages,
    secrets,
)
from services.distiller.codebase.lessons import holding_out
from shared import codebase_settings
from shared.flight import samples
from shared.models import base as bases

ROOT = pathlib.Path(__file__).parents[4]
SETTINGS = codebase_settings.Codebase(most_samples=600)
pytestmark = pytest.mark.skipif(
    not (ROOT / ".git").exists(), reason="the lessons are those of a git repository"
)


class Committed:
    """The Python files of HEAD, read without anything of the distiller."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        with tarfile.open(fileobj=io.BytesIO(_git("archive", "--format=tar", "HEAD"))) as archive:
            for member in archive:
                if member.name.endswith(".py") and (file := archive.extractfile(member)):
                    self.texts[member.name] = file.read().decode()
        self.definitions: dict[str, set[str]] = {}
        self.docstrings: dict[str, set[str]] = {}
        for name, text in self.texts.items():
            nodes = [node for node in ast.walk(ast.parse(text)) if _is_definition(node)]
            self.docstrings[name] = {ast.get_docstring(node) or "" for node in nodes}  # type: ignore[arg-type]
            self.definitions[name] = {plain(node) for node in nodes}


def _git(*arguments: str) -> bytes:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, check=True).stdout


def _is_definition(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


def plain(node: ast.AST) -> str:
    """A tree as text, without what indentation does to docstrings and other long strings."""
    told = ast.dump(node)
    return "".join(told.replace("\\n", "").split())


def only(text: str) -> str:
    """The same of a text that is one definition."""
    (node,) = ast.parse(text).body
    assert _is_definition(node)
    return plain(node)


@pytest.fixture(scope="module")
def made() -> generator.Generated:
    return asyncio.run(generator.DatasetGenerator(SETTINGS).generate(ROOT))


@pytest.fixture(scope="module")
def head() -> Committed:
    return Committed()


@pytest.fixture(scope="module")
def folder(made: generator.Generated, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("lessons")
    dataset_folder.write(made, path)
    return path


def test_there_are_hundreds_of_at_least_four_kinds(made: generator.Generated) -> None:
    kinds = collections.Counter(one.kind for one in made.samples)
    assert len(made.samples) >= 200
    assert len([kind for kind, count in kinds.items() if count >= 10]) >= 4
    assert {samples.Kind.WRITE, samples.Kind.COMPLETE, samples.Kind.FIX} <= kinds.keys()


def test_every_sample_is_what_the_commit_holds(made: generator.Generated, head: Committed) -> None:
    commit = _git("rev-parse", "HEAD").decode().strip()
    everywhere = set().union(*head.definitions.values())
    for one in made.samples:
        where = f"{one.kind} of {one.path}: {one.symbol}"
        assert one.commit == commit
        assert one.teacher == samples.BY_REPOSITORY
        if "REMOVED_" in one.output:
            continue  # What stood there is secret; `test_secrets` has more.
        match one.kind:
            case samples.Kind.WRITE | samples.Kind.FIX | samples.Kind.REFACTOR:
                assert only(one.output) in head.definitions[one.path], where
            case samples.Kind.TEST:
                assert only(one.output) in everywhere, where
            case samples.Kind.EXPLAIN:
                assert one.output in head.docstrings[one.path], where
            case samples.Kind.COMPLETE:
                ast.parse(one.input + one.output)
                # The line of the cursor and the one before it lead on as they do in the file.
                lines = one.input.split("\n")[-2:]
                assert "\n".join(lines) + one.output in head.texts[one.path], where
        if one.kind in (samples.Kind.FIX, samples.Kind.REFACTOR):
            assert only(one.input) != only(one.output), where
    unseen = [one for one in made.samples if "REMOVED_" in one.output]
    assert len(unseen) <= 0.02 * len(made.samples)


def test_no_sample_holds_a_secret(made: generator.Generated) -> None:
    for one in made.samples:
        language = languages.of_path(one.path)
        for text in (one.input, one.output if one.kind != samples.Kind.EXPLAIN else ""):
            assert secrets.clean(text, language)[0] == text
        assert secrets.clean(one.instruction, None)[0] == one.instruction


def test_nothing_held_out_is_trained_on(made: generator.Generated) -> None:
    sides = collections.defaultdict(set)
    for one in made.samples:
        sides[(one.path, one.symbol)].add(one.held_out)
    assert all(len(side) == 1 for side in sides.values())
    share = sum(True in side for side in sides.values()) / len(sides)
    assert 0.05 < share < 0.3
    # Counted anew, with another tokenizer than the distiller's: words and signs.
    runs = collections.Counter[tuple[str, ...]]()
    chunks = {(one.path, one.symbol): one for one in made.report.extraction.chunks}
    for chunk in chunks.values():
        if chunk.form != "class":
            runs.update(set(_runs(chunk.text)))
    secret = {
        run
        for (path, symbol), chunk in chunks.items()
        if holding_out.is_held_out(path, symbol, SETTINGS.held_out_share) and chunk.form != "class"
        for run in _runs(chunk.body)
        if runs[run] == 1
    }
    given_away = [
        one.symbol
        for one in made.samples
        if not one.held_out and not secret.isdisjoint(_runs(one.output))
    ]
    assert given_away == []


def _runs(text: str) -> list[tuple[str, ...]]:
    """Of 30 words and signs, which is never less than 13 tokens."""
    told = text.split()
    return [tuple(told[at : at + 30]) for at in range(len(told) - 29)]


def test_the_card_counts_what_is_there(made: generator.Generated, folder: pathlib.Path) -> None:
    card = json.loads((folder / dataset_folder.CARD).read_bytes())
    assert card["samples"]["train"] + card["samples"]["held_out"] == len(made.samples)
    for field in ("kinds", "languages", "licences", "teachers"):
        counts = card[field].values()
        assert sum(one["train"] for one in counts) == card["samples"]["train"]
        assert sum(one["held_out"] for one in counts) == card["samples"]["held_out"]
    assert card["licence"] == "Apache-2.0"
    assert card["skipped"]
    assert sum(card["rejected"].values()) == len(
        (folder / dataset_folder.REJECTED).read_text().splitlines()
    )
    assert card["digests"].keys() == {path.name for path in folder.iterdir()} - {
        dataset_folder.CARD,
        dataset_folder.README,
    }
    for name, digest in card["digests"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    table = samples.from_bytes((folder / dataset_folder.TABLE).read_bytes())
    assert table == list(made.samples)


@pytest.mark.parametrize("form", list(formats.Format))
def test_each_form_loads_with_the_datasets_library(
    form: formats.Format, made: generator.Generated, folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    loaded = load(folder, form, tmp_path)
    for split, held_out in (("train", False), ("test", True)):
        wanted = [one for one in made.samples if one.held_out == held_out]
        rows = [dict(row) for row in loaded[split]]
        lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
        assert formats.from_jsonl(form, lines) == wanted
        written = (folder / dataset_card.file_name(form, held_out)).read_bytes()
        assert formats.from_jsonl(form, written) == wanted


def load(folder: pathlib.Path, form: formats.Format, cache: pathlib.Path) -> Any:
    """The dataset as the card's head describes it; nothing leaves the machine."""
    import datasets

    datasets.disable_progress_bars()
    return datasets.load_dataset(str(folder), str(form), cache_dir=str(cache))


def test_messages_are_read_as_trl_reads_them(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    tokenizer = bases.load(bases.EMBEDDED).tokenizer
    rows = load(folder, formats.Format.MESSAGES, tmp_path)["train"]
    for row in rows.select(range(50)):
        # Conversational language modelling: the template makes one text of the messages.
        whole = tokenizer.apply_chat_template(row["messages"], tokenize=False)
        # Prompt and completion: the loss is on what the template adds for the answer.
        prompt = tokenizer.apply_chat_template(
            row["messages"][:-1], tokenize=False, add_generation_prompt=True
        )
        assert whole.startswith(prompt)
        assert whole[len(prompt) :].startswith(row["messages"][-1]["content"])
        ids = tokenizer.apply_chat_template(row["messages"], return_dict=True)["input_ids"]
        prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        assert ids[: len(prompt_ids)] == prompt_ids
        assert len(ids) > len(prompt_ids)


def test_alpaca_is_read_as_prompt_and_completion(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    def parted(row: dict[str, str]) -> dict[str, str]:
        prompt = "\n\n".join(part for part in (row["instruction"], row["input"]) if part)
        return {"prompt": prompt, "completion": row["output"]}

    rows = load(folder, formats.Format.ALPACA, tmp_path)["train"]
    rows = rows.map(parted, remove_columns=rows.column_names)
    assert set(rows.column_names) == {"prompt", "completion"}
    assert all(row["prompt"] and row["completion"] for row in rows)
