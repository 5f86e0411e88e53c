"""What teachers cost, as their servers say it, and that keys stay where they are."""

from __future__ import annotations

import logging
import pathlib
import traceback

import pytest
import structlog

from services.distiller import spending
from services.distiller.providers import base, registry
from shared import costs, errors, teacher_settings
from shared import settings as config
from tests.contract import asked_teachers, teacher_server
from tests.unit.distiller import fakes

every_teacher = asked_teachers.every_teacher
REQUEST = base.QARequest(
    topic="Varnholt Bridge", queries=("How long is Varnholt Bridge?",), task_id="t1"
)
COUNTED = teacher_server.Step(asked_teachers.REPLY, usage=(210, 90))
RATES = {
    name: teacher_settings.Rate(input=1.0, output=10.0) for name in ("gpt-4.1", "claude-sonnet-5")
}


def _ledger(**budget: float) -> spending.Ledger:
    spend = teacher_settings.Spending(**budget)  # type: ignore[arg-type]
    return fakes.ledger(teacher_settings.Evolution(rates=RATES, budget=spend))


async def _ask(
    make: asked_teachers.Make,
    server: teacher_server.TeacherServer,
    ledger: spending.Ledger,
    timeout_s: float = 10.0,
) -> None:
    await asked_teachers.ask(make, server, timeout_s, ledger, REQUEST)


@every_teacher
async def test_tokens_and_dollars_are_counted_when_the_server_tells_them(
    make: asked_teachers.Make,
) -> None:
    ledger = _ledger()
    async with teacher_server.TeacherServer(COUNTED) as server:
        await _ask(make, server, ledger)
    free = make is asked_teachers.local_teacher
    assert ledger.of_task("t1") == costs.Spent(1, 210, 90, 0.0 if free else 0.00111)


@every_teacher
@pytest.mark.parametrize("usage", [None, (0, 0), (-1, 7), (7, 0)])
async def test_tokens_are_estimates_when_the_server_tells_none(
    make: asked_teachers.Make, usage: tuple[int, int] | None
) -> None:
    ledger = _ledger()
    uncounted = teacher_server.Step(asked_teachers.REPLY, usage=usage)
    async with teacher_server.TeacherServer(uncounted) as server:
        await _ask(make, server, ledger)
    spent = ledger.of_task("t1")
    assert spent.estimated_calls == 1
    assert spent.tokens_out == spending.tokens(asked_teachers.REPLY)
    assert spent.tokens_in > spending.tokens(str(server.seen[0].body["messages"][-1]["content"]))


@every_teacher
async def test_every_answer_is_counted_when_one_had_to_be_repaired(
    make: asked_teachers.Make,
) -> None:
    ledger = _ledger()
    script = (teacher_server.Step("Sure!", usage=(200, 5)), COUNTED)
    async with teacher_server.TeacherServer(*script) as server:
        await _ask(make, server, ledger)
    spent = ledger.of_task("t1")
    assert (spent.calls, spent.tokens_in, spent.tokens_out) == (2, 410, 95)


@every_teacher
async def test_refusal_is_counted_when_the_model_says_no(make: asked_teachers.Make) -> None:
    ledger = _ledger()
    no = teacher_server.Step(refusal="I would rather not.", usage=(200, 6))
    async with teacher_server.TeacherServer(no) as server:
        with pytest.raises(errors.TeacherError, match="rather not"):
            await _ask(make, server, ledger)
    assert ledger.of_task("t1").tokens_out == 6


@every_teacher
@pytest.mark.parametrize("status", [400, 401, 429, 500])
async def test_nothing_is_counted_when_the_server_turned_the_request_down(
    make: asked_teachers.Make, status: int
) -> None:
    ledger = _ledger()
    async with teacher_server.TeacherServer(teacher_server.Step(status=status)) as server:
        with pytest.raises(errors.SkillmeshError):
            await _ask(make, server, ledger)
    assert ledger.of_task("t1") == costs.Spent()


@every_teacher
@pytest.mark.parametrize(
    ("step", "timeout_s"),
    [(teacher_server.Step(hangs=True), 6.0), (teacher_server.Step(resets=True), 60.0)],
    ids=["hangs", "resets"],
)
async def test_call_counts_at_its_estimate_when_its_end_was_not_seen(
    make: asked_teachers.Make, step: teacher_server.Step, timeout_s: float
) -> None:
    ledger = _ledger()
    async with teacher_server.TeacherServer(step) as server:
        with pytest.raises(errors.TeacherUnavailableError):
            await _ask(make, server, ledger, timeout_s)
    spent = ledger.of_task("t1")
    assert spent.calls == spent.estimated_calls == len(server.seen)
    assert spent.tokens_out == len(server.seen) * 16_000


@every_teacher
async def test_only_the_repair_is_paid_when_the_first_answer_was_there_before(
    make: asked_teachers.Make,
) -> None:
    ledger = _ledger()
    script = (teacher_server.Step("Sure!"), teacher_server.Step(hangs=True), COUNTED)
    async with teacher_server.TeacherServer(*script) as server:
        with pytest.raises(errors.TeacherUnavailableError):
            await _ask(make, server, ledger, 6.0)
        await _ask(make, server, ledger)
        assert len(server.seen) == 3
        assert "could not be used" in server.seen[2].body["messages"][-1]["content"]
        # Nor is the repaired one, once it is there.
        await _ask(make, server, ledger)
    assert len(server.seen) == 3


async def test_question_is_asked_again_when_the_kept_answer_is_of_another_shape() -> None:
    ledger = _ledger()
    script = (teacher_server.Step("Sure!"), COUNTED)
    async with teacher_server.TeacherServer(*script) as server:
        await _ask(asked_teachers.local_teacher, server, ledger)
        ledger._connection.execute("UPDATE calls SET answer = '{\"words\": 1}'")
        await _ask(asked_teachers.local_teacher, server, ledger)
    # Once more the task; its answer needs no repair this time.
    assert len(server.seen) == 3


async def test_documents_teach_when_the_paid_teacher_is_over_budget() -> None:
    async with teacher_server.TeacherServer(COUNTED) as server:
        reader = fakes.Teacher([fakes.pair("Q?", "A", teacher="documents")], "documents")
        chain = _chain(server.root, reader, fallbacks=True, task_tokens=17_300)
        first = await chain.generate_qa(REQUEST)
        other = base.QARequest(topic="The pump", queries=("Who built it?",), task_id="t1")
        second = await chain.generate_qa(other)
        await chain.aclose()
    assert [pairs[0].teacher for pairs in (first, second)] == ["openai:gpt-4.1", "documents"]
    assert len(server.seen) == 1


async def test_task_fails_with_the_key_to_raise_when_nobody_teaches_for_nothing() -> None:
    async with teacher_server.TeacherServer(COUNTED) as server:
        chain = _chain(server.root, fakes.Teacher([]), fallbacks=False, day_dollars=0.01)
        with pytest.raises(
            errors.BudgetError, match=r"openai:gpt-4\.1.*raise evolution\.budget\.day_dollars"
        ):
            await chain.generate_qa(REQUEST)
        await chain.aclose()
    assert server.seen == []


async def test_output_limit_is_sent_when_the_estimate_relies_on_it() -> None:
    for make, name in (
        (asked_teachers.openai_teacher, "max_completion_tokens"),
        (asked_teachers.anthropic_teacher, "max_tokens"),
    ):
        async with teacher_server.TeacherServer(COUNTED) as server:
            await _ask(make, server, _ledger())
        assert server.seen[0].body[name] == 16_000


async def test_no_output_limit_is_sent_when_a_local_server_may_have_less_room() -> None:
    async with teacher_server.TeacherServer(COUNTED) as server:
        await _ask(asked_teachers.local_teacher, server, _ledger())
    assert not {"max_tokens", "max_completion_tokens"} & set(server.seen[0].body)


LEAK = f"bad header 'Authorization: Bearer {asked_teachers.KEY}'"


@pytest.mark.parametrize("make", [asked_teachers.openai_teacher, asked_teachers.anthropic_teacher])
@pytest.mark.parametrize(
    "step",
    [
        teacher_server.Step(status=401, message=LEAK),
        teacher_server.Step(status=404, message=LEAK),
        teacher_server.Step(status=500, message=LEAK),
        teacher_server.Step(refusal=LEAK),
        teacher_server.Step(f"{{{LEAK}"),
        teacher_server.Step(body=LEAK),
        teacher_server.Step(asked_teachers.REPLY.replace("412 metres long", asked_teachers.KEY)),
    ],
    ids=["401", "404", "500", "refusal", "prose", "no JSON", "in an answer"],
)
async def test_key_is_nowhere_when_the_server_quotes_it(
    make: asked_teachers.Make,
    step: teacher_server.Step,
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "spending.sqlite"
    ledger = fakes.ledger(path=path)
    told = ""
    with caplog.at_level(logging.DEBUG), structlog.testing.capture_logs() as logged:
        async with teacher_server.TeacherServer(step) as server:
            try:
                told = str(await asked_teachers.ask(make, server, 10.0, ledger, REQUEST, 0))
            except errors.SkillmeshError as error:
                told = "".join(traceback.format_exception(error))
    ledger.close()
    assert f"Bearer {asked_teachers.KEY}" == server.seen[0].headers["authorization"]
    assert "[key]" in told + str([seen.body for seen in server.seen]) or step.body
    files = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    for written in (told, caplog.text, str(logged), files.decode(errors="replace")):
        assert asked_teachers.KEY not in written


def _chain(
    root: str, reader: base.CloudProvider, fallbacks: bool, **budget: float
) -> base.CloudProvider:
    evolution = config.Evolution(
        provider_type="openai",
        endpoint=f"{root}/v1",
        rates=RATES,
        budget=teacher_settings.Spending(**budget),  # type: ignore[arg-type]
        fallbacks=(config.Teacher(provider_type="documents"),) if fallbacks else (),
    )
    keys = {"OPENAI_API_KEY": asked_teachers.KEY}
    return registry.get_cloud_provider(evolution, lambda: reader, keys, fakes.ledger(evolution))
