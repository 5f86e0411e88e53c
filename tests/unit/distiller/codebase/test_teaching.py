"""What a teacher writes about definitions, through a real SDK and a server on loopback."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest

from services.distiller.codebase import chunks
from services.distiller.codebase.lessons import checks, journal, parsing, source, teaching
from services.distiller.providers import base, failover
from shared import errors, teacher_settings
from shared.flight import samples
from tests.contract import asked_teachers, teacher_server
from tests.unit.distiller import fakes
from tests.unit.distiller.codebase import code_bases

EVERY = code_bases.definitions()
OF, LATER = EVERY["Halves.of"], EVERY["later"]
TOLD = {
    "explanation": "It halves a number and gives back no less than `least`.",
    "task": "Write the method `Halves.of`, which halves `number` but never goes below `least`.",
    "test": "```python\ndef test_of():\n    assert Halves().of(5) == 2\n```",
    "before": "def of(self, number, least=0):\n    return max(number / 2, least)",
    "change": "Halve without floats and say what is compared.",
}
GOOD = teacher_server.Step(json.dumps(TOLD))


def scrub(text: str, path: str) -> str:
    return text.replace("hunter2", "REMOVED")


async def unheard(done: int, of: int) -> None:
    """Nobody wants to know."""


async def teach(
    server: teacher_server.TeacherServer,
    *chosen: chunks.Chunk,
    kept: journal.Journal | None = None,
    make: asked_teachers.Make = asked_teachers.openai_teacher,
    **terms: object,
) -> teaching.Taught:
    provider = make(server.root, asked_teachers.terms(**terms))  # type: ignore[arg-type]
    try:
        return await teaching.Teaching(provider, kept, scrub).teach(
            "task-1", code_bases.COMMIT, chosen, unheard
        )
    finally:
        await provider.aclose()


@asked_teachers.every_teacher
async def test_lessons_pass_the_checks_when_a_teacher_wrote_them(
    make: asked_teachers.Make,
) -> None:
    async with teacher_server.TeacherServer(GOOD) as server:
        taught = await teach(server, OF, make=make)
    kinds = samples.Kind
    assert {one.kind for one in taught.drafts} == {
        kinds.EXPLAIN, kinds.WRITE, kinds.TEST, kinds.REFACTOR,
    }  # fmt: skip
    check = checks.Checks({(OF.path, OF.symbol): OF}, scrub, parsing.parses)
    assert check.sift(taught.drafts).rejected == ()
    by_kind = {one.kind: one for one in taught.drafts}
    assert by_kind[kinds.WRITE].output == by_kind[kinds.REFACTOR].output
    assert by_kind[kinds.WRITE].output == source.dedented(OF.text)
    assert by_kind[kinds.TEST].output.startswith("def test_of")
    name = "local:tiny" if make is asked_teachers.local_teacher else make.__name__.split("_")[0]
    assert all(one.teacher.startswith(name) for one in taught.drafts)
    sent = json.dumps(server.seen[0].body)
    assert "Halves.of" in sent
    assert "explanation" in sent


async def test_nothing_leaves_when_the_last_look_finds_a_secret() -> None:
    async with teacher_server.TeacherServer(GOOD) as server:
        hidden = [
            dataclasses.replace(OF, text=OF.text.replace("number // 2", "hunter2")),
            dataclasses.replace(OF, imports=("from hunter2 import x",)),
            dataclasses.replace(OF, call_sites=("of(hunter2)",)),
            dataclasses.replace(OF, path="hunter2.py"),
            dataclasses.replace(OF, text=f"{OF.text}\n{'x = 1; ' * 4000}"),
        ]
        taught = await teach(server, *hidden, LATER)
    assert taught.withheld == {"secret": 4, "length": 1}
    assert taught.asked == len(server.seen) == 1
    assert "hunter2" not in json.dumps(server.seen[0].body)


async def test_nothing_is_paid_twice_when_a_task_goes_on(tmp_path: pathlib.Path) -> None:
    kept = journal.Journal(tmp_path)
    async with teacher_server.TeacherServer(GOOD, teacher_server.Step(status=503)) as server:
        with pytest.raises(errors.TeacherUnavailableError):
            await teach(server, OF, LATER, kept=kept, retries=0)
        first = len(server.seen)
    async with teacher_server.TeacherServer(GOOD) as server:
        taught = await teach(server, OF, LATER, kept=kept)
        assert first == 2
        assert len(server.seen) == 1
    assert taught.asked == 2
    # Another definition of the same name is another question.
    async with teacher_server.TeacherServer(GOOD) as server:
        await teach(server, dataclasses.replace(OF, text=f"{OF.text}  # new"), kept=kept)
        assert len(server.seen) == 1
    (broken,) = [one for one in tmp_path.rglob("*.json") if "later" in one.read_text()][:1] or [
        next(tmp_path.rglob("*.json"))
    ]
    broken.write_text("{")
    async with teacher_server.TeacherServer(GOOD) as server:
        await teach(server, OF, LATER, dataclasses.replace(OF, text=f"{OF.text}  # new"), kept=kept)
        assert len(server.seen) == 1


async def test_what_it_cost_is_on_the_tasks_account() -> None:
    ledger = fakes.ledger()
    step = dataclasses.replace(GOOD, usage=(700, 90))
    async with teacher_server.TeacherServer(step) as server:
        await teach(server, OF, LATER, ledger=ledger)
    spent = ledger.of_task("task-1")
    assert (spent.calls, spent.tokens_in, spent.tokens_out) == (2, 1400, 180)


async def test_teaching_ends_when_the_budget_is_spent() -> None:
    budget = teacher_settings.Spending(task_tokens=20_000)
    ledger = fakes.ledger(teacher_settings.Evolution(budget=budget))
    step = dataclasses.replace(GOOD, usage=(3000, 3000))
    async with teacher_server.TeacherServer(step) as server:
        with pytest.raises(errors.BudgetError, match="task_tokens"):
            await teach(server, OF, LATER, ledger=ledger)
        assert len(server.seen) == 1


async def test_a_definition_is_passed_over_when_its_answer_is_of_no_use() -> None:
    nothing = teacher_server.Step(json.dumps(dict.fromkeys(TOLD, "")))
    bad = teacher_server.Step("no JSON at all")
    async with teacher_server.TeacherServer(bad, bad, nothing) as server:
        taught = await teach(server, OF, LATER)
    assert taught.failed == {"TeacherError": 1}
    assert (taught.asked, taught.drafts) == (1, ())


async def test_the_first_language_model_is_asked_when_the_chain_begins_with_documents() -> None:
    async with teacher_server.TeacherServer(GOOD) as server:
        model = asked_teachers.local_teacher(server.root, asked_teachers.terms())
        chain = failover.Failover([fakes.Teacher([]), model], lambda: 0.0)
        assert chain.writes_code
        request = base.CodeRequest("task", "python", "a.py", "f", "", "def f(): ...")
        answer = await chain.write_code(request)
        await chain.aclose()
    assert answer == base.CodeAnswer("local:tiny", **TOLD)
    only = failover.Failover([fakes.Teacher([])], lambda: 0.0)
    assert not only.writes_code
    with pytest.raises(errors.PreconditionError, match=r"evolution\.provider_type"):
        await fakes.Teacher([]).write_code(request)
