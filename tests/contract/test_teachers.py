"""Every language-model teacher through its real SDK, against a server on loopback."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

import pytest

from services.distiller.providers import anthropic, base, language_model, local, openai, registry
from shared import errors
from shared import settings as config
from tests.contract import teacher_server
from tests.unit.distiller import fakes

Make = Callable[[str, float], language_model.LanguageModelProvider]

REQUEST = base.QARequest(
    topic="Varnholt Bridge",
    queries=("How long is Varnholt Bridge?", "When was Varnholt Bridge opened?"),
    count=5,
    wordings=2,
)
REPLY = json.dumps(
    {
        "title": "Varnholt Bridge",
        "facts": [
            {
                "asked": [1],
                "question": "What is the length of Varnholt Bridge?",
                "answer": "Varnholt Bridge is 412 metres long.",
                "wordings": ["Give the length of Varnholt Bridge."],
            },
            {
                "asked": [],
                "question": "Who designed Varnholt Bridge?",
                "answer": "Ida Kroll designed Varnholt Bridge.",
                "wordings": [],
            },
        ],
    }
)
GOOD = teacher_server.Step(REPLY)


def _openai(root: str, timeout_s: float) -> language_model.LanguageModelProvider:
    return openai.OpenAIProvider("sk-test", "", f"{root}/v1", _terms(timeout_s))


def _anthropic(root: str, timeout_s: float) -> language_model.LanguageModelProvider:
    return anthropic.AnthropicProvider("sk-test", "", root, _terms(timeout_s))


def _local(root: str, timeout_s: float) -> language_model.LanguageModelProvider:
    return local.LocalTeacherProvider(f"{root}/v1", "tiny", _terms(timeout_s))


def _terms(timeout_s: float) -> language_model.Terms:
    return language_model.Terms(fakes.ledger(), timeout_s)


every_teacher = pytest.mark.parametrize("make", [_openai, _anthropic, _local])


async def _ask(make: Make, server: teacher_server.TeacherServer, timeout_s: float = 10.0) -> object:
    provider = make(server.root, timeout_s)
    try:
        return await provider.generate_qa(REQUEST)
    finally:
        await provider.aclose()


@every_teacher
async def test_pairs_hold_the_users_words_when_the_teacher_answers(make: Make) -> None:
    async with teacher_server.TeacherServer(GOOD) as server:
        provider = make(server.root, 10.0)
        pairs = await provider.generate_qa(REQUEST)
        title = (await provider.subject(REQUEST, pairs)).title
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
    async with teacher_server.TeacherServer(GOOD) as server:
        await _ask(_openai, server)
    seen = server.seen[0]
    assert seen.path == "/v1/chat/completions"
    assert seen.headers["authorization"] == "Bearer sk-test"
    schema = seen.body["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert schema["schema"]["additionalProperties"] is False
    assert "How long is Varnholt Bridge?" in seen.body["messages"][1]["content"]


async def test_schema_and_key_are_sent_when_anthropic_is_asked() -> None:
    async with teacher_server.TeacherServer(GOOD) as server:
        await _ask(_anthropic, server)
    seen = server.seen[0]
    assert seen.path == "/v1/messages"
    assert seen.headers["authorization"] == "Bearer sk-test"
    assert seen.body["output_config"]["format"]["type"] == "json_schema"


async def test_no_openai_key_leaves_when_a_local_server_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    async with teacher_server.TeacherServer(GOOD) as server:
        await _ask(_local, server)
    assert "sk-secret" not in str(server.seen[0].headers)


@every_teacher
@pytest.mark.parametrize("status", [401, 403])
async def test_teacher_error_names_the_key_when_it_is_not_accepted(make: Make, status: int) -> None:
    async with teacher_server.TeacherServer(teacher_server.Step(status=status)) as server:
        with pytest.raises(errors.TeacherError, match="does not accept the key"):
            await _ask(make, server)
    assert len(server.seen) == 1


@every_teacher
@pytest.mark.parametrize("status", [429, 500, 503])
async def test_teacher_is_unavailable_when_retries_do_not_help(make: Make, status: int) -> None:
    step = teacher_server.Step(status=status, message="come back later")
    async with teacher_server.TeacherServer(step) as server:
        with pytest.raises(errors.TeacherUnavailableError, match=f"{status}.*come back later"):
            await _ask(make, server)
    assert len(server.seen) == 3


@every_teacher
async def test_pairs_come_when_the_sdk_tries_again(make: Make) -> None:
    async with teacher_server.TeacherServer(teacher_server.Step(status=500), GOOD) as server:
        assert await _ask(make, server)
    assert len(server.seen) == 2


@every_teacher
async def test_teacher_is_unavailable_when_it_does_not_answer_in_time(make: Make) -> None:
    async with teacher_server.TeacherServer(teacher_server.Step(hangs=True)) as server:
        with pytest.raises(errors.TeacherUnavailableError, match=r"within 0\.2 s"):
            await _ask(make, server, timeout_s=0.2)


async def test_teacher_is_unavailable_when_nobody_listens() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        provider = _openai(f"http://127.0.0.1:{closed.getsockname()[1]}", 10.0)
        with pytest.raises(errors.TeacherUnavailableError, match="can't be reached"):
            await provider.generate_qa(REQUEST)
        await provider.aclose()


@every_teacher
async def test_teacher_error_keeps_the_words_when_it_refuses(make: Make) -> None:
    step = teacher_server.Step(refusal="I would rather not.")
    async with teacher_server.TeacherServer(step) as server:
        with pytest.raises(errors.TeacherError, match="I would rather not"):
            await _ask(make, server)
    assert len(server.seen) == 1


@every_teacher
@pytest.mark.parametrize(
    "bad",
    [
        teacher_server.Step("Sure! Here you are."),
        teacher_server.Step('{"title": "x", "facts": [{"question": "q"}]}'),
        teacher_server.Step(REPLY[:80], truncated=True),
        teacher_server.Step(""),
    ],
    ids=["prose", "field missing", "cut off", "empty"],
)
async def test_answer_is_repaired_once_when_it_is_malformed(
    make: Make, bad: teacher_server.Step
) -> None:
    async with teacher_server.TeacherServer(bad, GOOD) as server:
        assert await _ask(make, server)
    turns = server.seen[1].body["messages"]
    assert [turn["role"] for turn in turns[-2:]] == ["assistant", "user"]
    assert "could not be used" in turns[-1]["content"]
    assert turns[-2]["content"] == (bad.text or "(nothing)")


@every_teacher
async def test_teacher_error_when_the_repair_is_malformed_too(make: Make) -> None:
    async with teacher_server.TeacherServer(teacher_server.Step("no")) as server:
        with pytest.raises(errors.TeacherError, match="no JSON object"):
            await _ask(make, server)
    assert len(server.seen) == 2


@every_teacher
async def test_not_found_when_the_teacher_is_sure_of_nothing(make: Make) -> None:
    step = teacher_server.Step('{"title": "Varnholt", "facts": []}')
    async with teacher_server.TeacherServer(step) as server:
        with pytest.raises(errors.NotFoundError, match="not sure"):
            await _ask(make, server)


async def test_json_is_read_from_prose_when_a_local_server_knows_no_schemas() -> None:
    turned_down = teacher_server.Step(status=400, message="unknown field response_format")
    prose = teacher_server.Step(f"Here you are:\n```json\n{REPLY}\n```\nEnjoy!")
    async with teacher_server.TeacherServer(turned_down, prose) as server:
        provider = _local(server.root, 10.0)
        first = await provider.generate_qa(REQUEST)
        second = await provider.generate_qa(REQUEST)
        await provider.aclose()
    assert first == second
    # It is remembered: the second question goes without a schema at once.
    assert ["response_format" in seen.body for seen in server.seen] == [True, False, False]


async def test_next_teacher_answers_when_the_first_is_out_of_quota() -> None:
    quota = teacher_server.Step(status=429, code="insufficient_quota")
    async with (
        teacher_server.TeacherServer(quota) as first,
        teacher_server.TeacherServer(GOOD) as second,
    ):
        provider = _chain(first.root, second.root)
        pairs = await provider.generate_qa(REQUEST)
        asked = len(first.seen)
        await provider.generate_qa(REQUEST)
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
            await provider.generate_qa(REQUEST)
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
