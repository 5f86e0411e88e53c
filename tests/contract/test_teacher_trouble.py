"""What teachers make of servers in trouble, through the real SDKs: retries, deadlines, nonsense."""

from __future__ import annotations

import email.utils
import time

import pytest

from services.distiller.providers import base, breaker, failures, registry
from shared import errors
from shared import settings as config
from tests.contract import asked_teachers, teacher_server
from tests.unit.distiller import fakes

every_teacher = asked_teachers.every_teacher
FAR_S = 3600


def _turned_down(status: int, *headers: tuple[str, str]) -> teacher_server.Step:
    return teacher_server.Step(status=status, headers=headers)


@every_teacher
@pytest.mark.parametrize("header", [("retry-after-ms", "80"), ("retry-after", "0.08")])
async def test_answer_comes_after_the_pause_when_the_server_asks_for_one(
    make: asked_teachers.Make, header: tuple[str, str]
) -> None:
    script = (_turned_down(429, header), asked_teachers.GOOD)
    async with teacher_server.TeacherServer(*script) as server:
        assert await asked_teachers.ask(make, server)
    first, second = (seen.at_s for seen in server.seen)
    assert second - first >= 0.08


@every_teacher
@pytest.mark.parametrize("status", [429, 503, 529])
@pytest.mark.parametrize("as_date", [False, True], ids=["seconds", "date"])
async def test_teacher_is_given_up_at_once_when_the_pause_is_longer_than_the_deadline(
    make: asked_teachers.Make, status: int, as_date: bool
) -> None:
    wait = email.utils.formatdate(time.time() + FAR_S, usegmt=True) if as_date else str(FAR_S)
    async with teacher_server.TeacherServer(_turned_down(status, ("retry-after", wait))) as server:
        with pytest.raises(
            errors.TeacherUnavailableError, match=rf"{status}.*pause of 3[56]\d\d s.*30 s for one"
        ) as caught:
            await asked_teachers.ask(make, server, timeout_s=30.0)
    assert len(server.seen) == 1
    assert failures.advice(caught.value).after_s == pytest.approx(FAR_S, abs=30)


@every_teacher
@pytest.mark.parametrize(("wanted", "requests"), [("false", 1), ("true", 3)])
async def test_server_decides_when_it_says_whether_to_try_again(
    make: asked_teachers.Make, wanted: str, requests: int
) -> None:
    headers = (("x-should-retry", wanted), ("retry-after-ms", "1"))
    status = 500 if wanted == "false" else 418
    async with teacher_server.TeacherServer(_turned_down(status, *headers)) as server:
        with pytest.raises(errors.TeacherUnavailableError, match=str(status)):
            await asked_teachers.ask(make, server)
    assert len(server.seen) == requests


@every_teacher
async def test_deadline_holds_when_bytes_keep_coming(make: asked_teachers.Make) -> None:
    async with teacher_server.TeacherServer(teacher_server.Step(trickles=True)) as server:
        with pytest.raises(errors.TeacherUnavailableError, match=r"within 0\.3 s"):
            await asked_teachers.ask(make, server, timeout_s=0.3)


@every_teacher
async def test_first_trouble_is_told_when_the_retry_takes_too_long(
    make: asked_teachers.Make,
) -> None:
    script = (teacher_server.Step(status=503), teacher_server.Step(hangs=True))
    async with teacher_server.TeacherServer(*script) as server:
        with pytest.raises(errors.TeacherUnavailableError, match=r"within 6 s.*before that.*503"):
            await asked_teachers.ask(make, server, timeout_s=6.0)


@every_teacher
async def test_answer_comes_when_the_first_connection_broke(make: asked_teachers.Make) -> None:
    script = (teacher_server.Step(resets=True), asked_teachers.GOOD)
    async with teacher_server.TeacherServer(*script) as server:
        assert await asked_teachers.ask(make, server)
    assert len(server.seen) == 2


@every_teacher
async def test_teacher_is_unavailable_when_every_connection_breaks(
    make: asked_teachers.Make,
) -> None:
    async with teacher_server.TeacherServer(teacher_server.Step(resets=True)) as server:
        with pytest.raises(errors.TeacherUnavailableError, match="connection broke"):
            await asked_teachers.ask(make, server)
    assert len(server.seen) == 3


@every_teacher
@pytest.mark.parametrize(
    "nonsense",
    [
        teacher_server.Step(body='{"id": "chatcmpl-1", "choi'),
        teacher_server.Step(body="<html>Sign in</html>", content_type="text/html"),
        teacher_server.Step(body="[1, 2]"),
        teacher_server.Step(body="null"),
        teacher_server.Step(body='{"status": "ok"}'),
        teacher_server.Step(body='{"choices": [{}], "content": "none"}'),
        teacher_server.Step(body=""),
    ],
    ids=["cut off", "html", "list", "null", "other object", "other shape", "empty"],
)
async def test_endpoint_is_named_when_the_answer_is_none_of_the_protocol(
    make: asked_teachers.Make, nonsense: teacher_server.Step
) -> None:
    async with teacher_server.TeacherServer(nonsense) as server:
        with pytest.raises(errors.TeacherUnavailableError, match=r"check evolution\.endpoint"):
            await asked_teachers.ask(make, server, retries=0)


async def test_next_teacher_answers_at_once_when_the_first_asks_to_be_left_alone() -> None:
    first_steps = _turned_down(429, ("retry-after", str(FAR_S)))
    now = [0.0]
    async with (
        teacher_server.TeacherServer(first_steps, asked_teachers.GOOD) as first,
        teacher_server.TeacherServer(asked_teachers.GOOD) as second,
    ):
        chain = _chain(first.root, second.root, now)
        assert (await chain.generate_qa(asked_teachers.REQUEST))[0].teacher == "anthropic:b"
        circuit = chain.circuits()[0]
        assert (circuit.name, circuit.state) == ("openai:a", breaker.State.OPEN)
        assert circuit.open_for_s == FAR_S
        now[0] = FAR_S - 1.0
        assert (await chain.generate_qa(asked_teachers.REQUEST))[0].teacher == "anthropic:b"
        assert len(first.seen) == 1
        now[0] = FAR_S
        assert (await chain.generate_qa(asked_teachers.REQUEST))[0].teacher == "openai:a"
        assert chain.circuits()[0].state is breaker.State.CLOSED
        await chain.aclose()


@pytest.mark.parametrize("status", [401, 403])
async def test_teacher_is_not_asked_again_when_its_key_was_refused(status: int) -> None:
    async with (
        teacher_server.TeacherServer(teacher_server.Step(status=status)) as first,
        teacher_server.TeacherServer(asked_teachers.GOOD) as second,
    ):
        chain = _chain(first.root, second.root, [0.0])
        for _ in range(2):
            assert (await chain.generate_qa(asked_teachers.REQUEST))[0].teacher == "anthropic:b"
        await chain.aclose()
    assert len(first.seen) == 1
    assert "does not accept the key" in chain.circuits()[0].reason


def _chain(first: str, second: str, now: list[float]) -> base.CloudProvider:
    evolution = config.Evolution(
        provider_type="openai",
        model="a",
        endpoint=f"{first}/v1",
        fallbacks=(config.Teacher(provider_type="anthropic", model="b", endpoint=second),),
    )
    keys = {"OPENAI_API_KEY": "sk-a-secret", "ANTHROPIC_API_KEY": "sk-b-secret"}
    return registry.get_cloud_provider(
        evolution, lambda: fakes.Teacher([]), keys, fakes.ledger(), lambda: now[0]
    )
