from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
import subprocess
import sys

import pytest

from services.distiller.codebase import dataset_folder, formats, generator, repository
from services.distiller.codebase.lessons import journal, verdicts
from shared import codebase_settings, errors
from shared.flight import samples
from tests.contract import asked_teachers, teacher_server
from tests.unit.distiller import fakes
from tests.unit.distiller.codebase import code_bases

TEST = """
from halves import Halves


def test_halves_are_rounded_down() -> None:
    halves = Halves()
    assert halves.of(5) == 2
"""
SETTINGS = codebase_settings.Codebase(held_out_share=0.0)
KEY = "AKIA" + "QYLPMN5HFZ2WR7TD"
ANSWER = {
    "explanation": "It does what its name says, and does it well.",
    "task": "Write the definition that is asked for here.",
    "test": "",
    "before": "",
    "change": "",
}


@pytest.fixture
def repo(tmp_path: pathlib.Path) -> code_bases.History:
    made = code_bases.History(tmp_path / "halving")
    old = code_bases.SOURCE.replace("        half = number // 2", "        half = int(number / 2)")
    made.commit_files("Add halves", {"halves.py": old, "tests/test_halves.py": TEST})
    made.commit("Halve without floats anywhere", halves__py=code_bases.SOURCE)
    return made


async def generate(
    repo: code_bases.History, settings: codebase_settings.Codebase = SETTINGS
) -> generator.Generated:
    return await generator.DatasetGenerator(settings).generate(repo.root)


async def test_every_kind_comes_when_the_repository_has_what_it_needs(
    repo: code_bases.History,
) -> None:
    told: list[tuple[float, str]] = []

    async def progress(share: float, detail: str) -> None:
        told.append((share, detail))

    made = await generator.DatasetGenerator(SETTINGS).generate(repo.root, progress)
    assert {one.kind for one in made.samples} == set(samples.Kind)
    assert all(not one.held_out for one in made.samples)
    (refactor,) = [one for one in made.samples if one.kind == samples.Kind.REFACTOR]
    assert refactor.symbol == "Halves.of"
    assert "Halve without floats anywhere" in refactor.instruction
    assert "int(number / 2)" in refactor.input
    (test,) = [
        one for one in made.samples if one.kind == samples.Kind.TEST and one.symbol == "Halves.of"
    ]
    assert test.output == TEST.partition("\n\n\n")[2].strip()
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert 0 <= shares[0] < shares[-1] <= 1


async def test_the_same_comes_again_when_it_is_made_again(repo: code_bases.History) -> None:
    first = await generate(repo)
    again = await generator.DatasetGenerator(SETTINGS).generate(
        repository.Repository.open(repo.root)
    )
    assert dataset_folder.files(first) == dataset_folder.files(again)


async def test_the_most_useful_are_taken_when_there_are_too_many(repo: code_bases.History) -> None:
    every = await generate(repo)
    few = await generate(repo, SETTINGS.model_copy(update={"most_samples": 3}))
    assert len(every.samples) > 3
    assert few.samples == every.samples[:3]
    surplus = [one for one in few.report.rejected if one.reason == verdicts.Reason.SURPLUS]
    assert few.card.rejected["surplus"] == len(surplus) > 0


async def test_all_of_a_definition_is_held_out_when_it_is(repo: code_bases.History) -> None:
    made = await generate(repo, SETTINGS.model_copy(update={"held_out_share": 1.0}))
    assert made.samples
    assert all(one.held_out for one in made.samples)
    assert made.card.samples.train == 0


async def test_what_is_not_committed_is_left_out(repo: code_bases.History) -> None:
    before = await generate(repo)
    path = repo.root / "halves.py"
    path.write_text(path.read_text().replace("wait, value", "value, wait"))
    made = await generate(repo)
    assert made.card.uncommitted == 1
    assert {one.symbol for one in before.samples} - {one.symbol for one in made.samples} == {
        "later"
    }


async def test_no_secret_stands_in_any_file_when_the_code_holds_one(
    repo: code_bases.History,
) -> None:
    body = (
        f'    """Signs what it is given with the key."""\n    key = "{KEY}"\n    return [key, a]\n'
    )
    old = body.replace("[key, a]", "[a, key]  # unsorted").replace('"""Signs', '"""Sign')
    repo.commit("Add signatures to everything", sign__py=f"def sign(a):\n{old}")
    repo.commit(f"Sign with {KEY} from now on", sign__py=f"def sign(a):\n{body}")
    made = await generate(repo)
    assert "sign" in {one.symbol for one in made.samples}
    assert made.card.removed
    for name, data in dataset_folder.files(made).items():
        assert KEY.encode() not in data, name


async def test_no_secret_stands_in_what_was_rejected_for_another_reason(
    repo: code_bases.History,
) -> None:
    lines = "".join(f"    found.append(a + {at} * 1000000)\n" for at in range(400))
    head = 'def load(a, found):\n    """Loads all that there is to be found."""\n'
    repo.commit("Add loading", load__py=f'{head}    key = "{KEY}"\n{lines}    return found, key\n')
    rest = "\n".join(lines.split("\n")[:180])
    repo.commit("Load without any key", load__py=f"{head}{rest}\n    return found\n")
    made = await generate(repo)
    assert made.card.rejected["secret"] == 1
    for name, data in dataset_folder.files(made).items():
        assert KEY.encode() not in data, name


async def test_no_test_is_taught_that_the_commit_does_not_hold(repo: code_bases.History) -> None:
    (repo.root / "tests" / "test_halves.py").write_text(TEST.replace("of(5) == 2", "of(7) == 3"))
    (repo.root / "test_more.py").write_text(TEST.replace("of(5) == 2", "of(9) == 4"))
    made = await generate(repo)
    assert samples.Kind.WRITE in {one.kind for one in made.samples}
    assert samples.Kind.TEST not in {one.kind for one in made.samples}


async def test_methods_are_asked_for_in_the_indentation_of_their_file(
    tmp_path: pathlib.Path,
) -> None:
    repo = code_bases.History(tmp_path / "tabs")
    repo.commit("Add halves", halves__py=code_bases.SOURCE.replace("    ", "\t"))
    asked = [one.input for one in (await generate(repo)).samples if one.kind == "write"]
    assert any("\n\tdef of(" in one for one in asked)
    assert not any("    " in one for one in asked)


async def test_half_characters_in_a_docstring_are_no_crash(repo: code_bases.History) -> None:
    text = code_bases.SOURCE.replace("Gives a value back", "Gives a \\ud800 back")
    repo.commit("Write half a character", halves__py=text)
    made = await generate(repo)
    (told,) = [
        one.output for one in made.samples
        if one.kind == samples.Kind.EXPLAIN and one.symbol == "later"
    ]  # fmt: skip
    assert told == "Gives a ? back after a while."
    assert dataset_folder.files(made)


async def test_deep_definitions_are_no_crash_now_or_in_the_history(
    repo: code_bases.History,
) -> None:
    head = '(a, b):\n    """Adds or chooses among very many."""\n'

    def summing(count: int) -> str:
        terms = "        a +\n" * count
        return f"def much{head}    return (\n{terms}        b\n    )\n"

    branches = "".join(f"    elif a == {at}:\n        return b + {at}\n" for at in range(400))
    many = f"def many{head}    if b:\n        return a\n{branches}"
    repo.commit("Add what is deep", much__py=summing(900), many__py=many)
    repo.commit("Add less than before to it", much__py=summing(5))
    made = await generate(repo)
    assert "much" in {one.symbol for one in made.samples}
    assert samples.Kind.FIX in {one.kind for one in made.samples}


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, r"no definition in 0 files .* \(none\)"),
        ({"a.py": "x = 1\n"}, "no definition in 1 files"),
        (
            {"a.py": "# SPDX-License-Identifier: GPL-3.0-only\nx = 1\n", "b.txt": ""},
            r"2 files were left out \(1 licence GPL-3.0-only, 1 no language known\)",
        ),
    ],
)
async def test_an_error_says_so_when_nothing_can_be_taught(
    tmp_path: pathlib.Path, files: dict[str, str], why: str
) -> None:
    made = code_bases.History(tmp_path / "empty")
    made.commit_files("Begin", files)
    with pytest.raises(errors.NotFoundError, match=why):
        await generate(made)
    with pytest.raises(errors.InvalidInputError, match="no such folder"):
        await generator.DatasetGenerator(SETTINGS).generate(tmp_path / "gone")


async def test_a_teacher_is_asked_when_it_writes_code(
    repo: code_bases.History, tmp_path: pathlib.Path
) -> None:
    step = teacher_server.Step(json.dumps(ANSWER))
    settings = SETTINGS.model_copy(update={"teacher_definitions": 2})
    async with teacher_server.TeacherServer(step) as server:
        teacher = asked_teachers.local_teacher(server.root, asked_teachers.terms())
        makes = generator.DatasetGenerator(settings, teacher, journal.Journal(tmp_path / "tasks"))
        with pytest.raises(errors.InvalidInputError, match="task_id"):
            await makes.generate(repo.root)
        made = await makes.generate(repo.root, task_id="task-1")
        again = await makes.generate(repo.root, task_id="task-1")
        await teacher.aclose()
        assert len(server.seen) == 2
    assert made.samples == again.samples
    assert made.card.asked == 2
    assert made.card.teachers["local:tiny"].train >= 2
    assert made.card.teachers[samples.BY_REPOSITORY].train >= 2


async def test_nobody_is_asked_when_the_teacher_has_documents_alone(
    repo: code_bases.History,
) -> None:
    teacher = fakes.Teacher([])
    made = await generator.DatasetGenerator(SETTINGS, teacher).generate(repo.root)
    assert teacher.asked == []
    assert made.samples == (await generate(repo)).samples


async def test_lessons_come_of_other_languages_too(tmp_path: pathlib.Path) -> None:
    made = code_bases.History(tmp_path / "web")
    text = """/**
 * The half of a number, rounded down, and never below zero.
 */
export function half(n) {
  const found = Math.floor(n / 2);
  if (found < 0) {
    return 0;
  }
  return found;
}
"""
    made.commit("Add halves", half__js=text)
    found = (await generate(made)).samples
    assert {one.kind for one in found} >= {samples.Kind.WRITE, samples.Kind.COMPLETE}
    for one in found:
        assert one.language == "javascript"
        if one.kind == samples.Kind.COMPLETE:
            assert one.input + one.output in text
    (write,) = [one for one in found if one.kind == samples.Kind.WRITE]
    assert write.output in text
    assert "rounded down" in write.input


def test_the_command_writes_all_files_and_shows_a_sample(
    repo: code_bases.History, tmp_path: pathlib.Path
) -> None:
    output = tmp_path / "lessons"
    done = run(str(repo.root), "--output", str(output))
    assert done.returncode == 0, done.stderr
    assert "Halves" in done.stdout
    assert "halving at" in done.stdout
    forms = itertools.product(formats.Format, ("train", "held_out"))
    assert {path.name for path in output.iterdir()} == {
        *(f"{form}.{side}.jsonl" for form, side in forms),
        *("samples.arrow", "rejected.jsonl", "dataset_card.json", "README.md"),
    }
    card = json.loads((output / "dataset_card.json").read_bytes())
    assert dataclasses.asdict(repository.Repository.open(repo.root))["commit"] == card["commit"]


def test_the_command_fails_in_one_line_when_there_is_no_repository(
    tmp_path: pathlib.Path,
) -> None:
    done = run(str(tmp_path), "--output", str(tmp_path / "lessons"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "git init" in done.stderr


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "services.distiller.codebase", *arguments]
    return subprocess.run(
        command, cwd=pathlib.Path(__file__).parents[4], capture_output=True, text=True
    )
