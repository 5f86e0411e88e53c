"""Every language-model teacher through its real SDK, against a server on loopback."""

from __future__ import annotations

import socket
import typing

import pytest
from anthropic.types import model_param
from openai.types import chat_model

from services.distiller.providers import anthropic, base, openai, registry
from shared import errors
from shared import settings as config
from tests.contract import asked_teachers, teacher_server
from tests.unit.distiller import fakes


def test_default_models_are_those_of_the_installed_sdks() -> None:
    assert openai.DEFAULT_MODEL in typing.get_args(chat_model.ChatModel)
    names, _ = typing.get_args(model_param.ModelParam)
    assert anthropic.DEFAULT_MODEL in typing.get_args(names)


@asked_teachers.every_teacher
async def test_pairs_hold_the_users_words_when_the_teacher_answers(
    make: asked_teachers.Make,
) -> None:
    async with teacher_server.TeacherServer(asked_teachers.GOOD) as server:
        provider = make(server.root, asked_teachers.terms())
        pairs = await provider.generate_qa(asked_teachers.REQUEST)
        title = (await provider.subject(asked_teachers.REQUEST, pairs)).title
        await provider.aclose()
    assert pairs[0].question == "How long is Varnholt Bridge?"
    assert pairs[0].answer == "Varnholt Bridge is 412 metres long."
    assert pairs[0].paraphrases == (
        "What is the length of Varnholt Bridge?",
        "Give the length of Varnholt Bridge.",
    )
    assert [pair.teacher for pair in pairs] == [provider.name] * 2
    assert title == "Varnholt Bridge"
    # The model left the second question out: so does the provider.
    assert all("opened" not in pair.question for pair in pairs)


async def test_schema_and_key_are_sent_when_openai_is_asked() -> None:
    async with teacher_server.TeacherServer(asked_teachers.GOOD) as server:
        await asked_teachers.ask(asked_teachers.openai_teacher, server)
    seen = server.seen[0]
    assert seen.path == "/v1/chat/completions"
    assert seen.headers["authorization"] == f"Bearer {asked_teachers.KEY}"
    schema = seen.body["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert schema["schema"]["additionalProperties"] is False
    assert "How long is Varnholt Bridge?" in seen.body["messages"][1]["content"]


async def test_schema_and_key_are_sent_when_anthropic_is_asked() -> None:
    async with teacher_server.TeacherServer(asked_teachers.GOOD) as server:
        await asked_teachers.ask(asked_teachers.anthropic_teacher, server)
    seen = server.seen[0]
    assert seen.path == "/v1/messages"
    assert seen.headers["authorization"] == f"Bearer {asked_teachers.KEY}"
    assert seen.body["output_config"]["format"]["type"] == "json_schema"


async def test_no_openai_key_leaves_when_a_local_server_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    async with teacher_server.TeacherServer(asked_teachers.GOOD) as server:
        await asked_teachers.ask(asked_teachers.local_teacher, server)
    assert "sk-secret" not in str(server.seen[0].headers)


@asked_teachers.every_teacher
@pytest.mark.parametrize("status", [401, 403])
async def test_teacher_error_names_the_key_when_it_is_not_accepted(
    make: asked_teachers.Make, status: int
) -> None:
    async with teacher_server.TeacherServer(teacher_server.Step(status=status)) as server:
        with pytest.raises(errors.TeacherError, match="does not accept the key"):
            await asked_teachers.ask(make, server)
    assert len(server.seen) == 1


@asked_teachers.every_teacher
@pytest.mark.parametrize("status", [429, 500, 503])
async def test_teacher_is_unavailable_when_retries_do_not_help(
    make: asked_teachers.Make, status: int
) -> None:
    step = teacher_server.Step(status=status, message="come back later")
    async with teacher_server.TeacherServer(step) as server:
        with pytest.raises(errors.TeacherUnavailableError, match=f"{status}.*come back later"):
            await asked_teachers.ask(make, server)
    assert len(server.seen) == 3


@asked_teachers.every_teacher
async def test_pairs_come_when_the_sdk_tries_again(make: asked_teachers.Make) -> None:
    async with teacher_server.TeacherServer(
        teacher_server.Step(status=500), asked_teachers.GOOD
    ) as server:
        assert await asked_teachers.ask(make, server)
    assert len(server.seen) == 2


@asked_teachers.every_teacher
async def test_teacher_is_unavailable_when_it_does_not_answer_in_time(
    make: asked_teachers.Make,
) -> None:
    async with teacher_server.TeacherServer(teacher_server.Step(hangs=True)) as server:
        with pytest.raises(errors.TeacherUnavailableError, match=r"within 0\.2 s"):
            await asked_teachers.ask(make, server, timeout_s=0.2)


async def test_teacher_is_unavailable_when_nobody_listens() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        provider = asked_teachers.openai_teacher(
            f"http://127.0.0.1:{closed.getsockname()[1]}", asked_teachers.terms()
        )
        with pytest.raises(errors.TeacherUnavailableError, match="can't be reached"):
            await provider.generate_qa(asked_teachers.REQUEST)
        await provider.aclose()


@asked_teachers.every_teacher
async def test_teacher_error_keeps_the_words_when_it_refuses(make: asked_teachers.Make) -> None:
    step = teacher_server.Step(refusal="I would rather not.")
    async with teacher_server.TeacherServer(step) as server:
        with pytest.raises(errors.TeacherError, match="I would rather not"):
            await asked_teachers.ask(make, server)
    assert len(server.seen) == 1


@asked_teachers.every_teacher
@pytest.mark.parametrize(
    "bad",
    [
        teacher_server.Step("Sure! Here you are."),
        teacher_server.Step('{"title": "x", "facts": [{"question": "q"}]}'),
        teacher_server.Step(asked_teachers.REPLY[:80], truncated=True),
        teacher_server.Step(""),
    ],
    ids=["prose", "field missing", "cut off", "empty"],
)
async def test_answer_is_repaired_once_when_it_is_malformed(
    make: asked_teachers.Make, bad: teacher_server.Step
) -> None:
    async with teacher_server.TeacherServer(bad, asked_teachers.GOOD) as server:
        assert await asked_teachers.ask(make, server)
    turns = server.seen[1].body["messages"]
    assert [turn["role"] for turn in turns[-2:]] == ["assistant", "user"]
    assert "could not be used" in turns[-1]["content"]
    assert turns[-2]["content"] == (bad.text or "(nothing)")


@asked_teachers.every_teacher
async def test_teacher_error_when_the_repair_is_malformed_too(make: asked_teachers.Make) -> None:
    async with teacher_server.TeacherServer(teacher_server.Step("no")) as server:
        with pytest.raises(errors.TeacherError, match="no JSON object"):
            await asked_teachers.ask(make, server)
    assert len(server.seen) == 2


@asked_teachers.every_teacher
async def test_not_found_when_the_teacher_is_sure_of_nothing(make: asked_teachers.Make) -> None:
    step = teacher_server.Step('{"title": "Varnholt", "facts": []}')
    async with teacher_server.TeacherServer(step) as server:
        with pytest.raises(errors.NotFoundError, match="not sure"):
            await asked_teachers.ask(make, server)


async def test_json_is_read_from_prose_when_a_local_server_knows_no_schemas() -> None:
    turned_down = teacher_server.Step(status=400, message="unknown field response_format")
    prose = teacher_server.Step(f"Here you are:\n```json\n{asked_teachers.REPLY}\n```\nEnjoy!")
    async with teacher_server.TeacherServer(turned_down, prose) as server:
        provider = asked_teachers.local_teacher(server.root, asked_teachers.terms())
        first = await provider.generate_qa(asked_teachers.REQUEST)
        second = await provider.generate_qa(asked_teachers.REQUEST)
        await provider.aclose()
    assert first == second
    # It is remembered: the second question goes without a schema at once.
    assert ["response_format" in seen.body for seen in server.seen] == [True, False, False]


async def test_next_teacher_answers_when_the_first_is_out_of_quota() -> None:
    quota = teacher_server.Step(status=429, code="insufficient_quota")
    async with (
        teacher_server.TeacherServer(quota) as first,
        teacher_server.TeacherServer(asked_teachers.GOOD) as second,
    ):
        provider = _chain(first.root, second.root)
        pairs = await provider.generate_qa(asked_teachers.REQUEST)
        asked = len(first.seen)
        await provider.generate_qa(asked_teachers.REQUEST)
        await provider.aclose()
    assert pairs[0].teacher == "anthropic:b"
    # No retry helps, and it is left alone the second time.
    assert (asked, len(first.seen)) == (1, 1)


async def test_message_lists_every_reason_when_all_teachers_are_down() -> None:
    async with (
        teacher_server.TeacherServer(teacher_server.Step(status=401, message="bad")) as first,
        teacher_server.TeacherServer(teacher_server.Step(status=529, message="busy")) as second,
    ):
        provider = _chain(first.root, second.root)
        with pytest.raises(errors.TeacherUnavailableError) as caught:
            await provider.generate_qa(asked_teachers.REQUEST)
        await provider.aclose()
    assert "openai:a: openai:a does not accept the key" in str(caught.value)
    assert "anthropic:b: anthropic:b answered 529" in str(caught.value)


def _chain(first: str, second: str) -> base.CloudProvider:
    evolution = config.Evolution(
        provider_type="openai",
        model="a",
        endpoint=f"{first}/v1",
        fallbacks=(config.Teacher(provider_type="anthropic", model="b", endpoint=second),),
    )
    keys = {"OPENAI_API_KEY": "sk-a", "ANTHROPIC_API_KEY": "sk-b"}
    return registry.get_cloud_provider(evolution, lambda: fakes.Teacher([]), keys, fakes.ledger())
