"""A distiller killed between two calls to a teacher pays for none of them twice."""

from __future__ import annotations

import asyncio
import pathlib
import sys

from services.distiller import distillation, distiller, journal, spending
from services.distiller.providers import language_model, openai
from shared import costs, teacher_settings
from shared import settings as config
from tests.contract import asked_teachers, teacher_server
from tests.unit.distiller import fakes

REQUEST = distillation.DistilRequest(
    "t1", queries=tuple(f"How long is bridge {at}?" for at in range(10))
)
"""Two calls: a teacher is asked eight questions at a time."""
COUNTED = teacher_server.Step(asked_teachers.REPLY.replace("[1]", "[1, 2]"), usage=(100, 20))


def main(root: str, folder: str) -> None:
    """What the process does that is killed."""
    asyncio.run(distil(root, pathlib.Path(folder)))


async def distil(root: str, folder: pathlib.Path) -> costs.Spent:
    """Distils with everything that it keeps in a folder; what the task cost."""
    path = folder / "spending.sqlite"
    ledger = spending.Ledger(path, teacher_settings.Evolution(), lambda: 0)
    terms = language_model.Terms(ledger, 60.0)
    teacher = openai.OpenAIProvider("sk-test", "", f"{root}/v1", terms)
    cloud = distiller.CloudDistiller(
        teacher, journal.Journal(folder), config.Distiller(judge="none")
    )
    await cloud.distil(REQUEST, fakes.no_progress)
    await teacher.aclose()
    spent = ledger.of_task("t1")
    ledger.close()
    return spent


async def test_no_answer_is_paid_twice_when_the_distiller_is_killed_between_two(
    tmp_path: pathlib.Path,
) -> None:
    script = (COUNTED, teacher_server.Step(hangs=True), COUNTED)
    async with teacher_server.TeacherServer(*script) as server:
        code = f"from tests.contract import test_teacher_kills as t; t.main({server.root!r}, "
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", f"{code}{str(tmp_path)!r})"
        )
        await server.until_asked(2)
        process.kill()
        await process.wait()
        spent = await distil(server.root, tmp_path)
        assert len(server.seen) == 3
        # Killed just before an answer got into the journal: it is there all the same.
        for file in tmp_path.rglob("*.json"):
            file.unlink()
        assert await distil(server.root, tmp_path) == spent
    assert len(server.seen) == 3
    asked = [seen.body["messages"][-1]["content"] for seen in server.seen]
    assert asked[0] != asked[1] == asked[2]
    # The one in the middle stays at its estimate: nobody knows what it cost.
    assert (spent.calls, spent.estimated_calls) == (3, 1)
    assert spent.tokens_out == 20 + 16_000 + 20
