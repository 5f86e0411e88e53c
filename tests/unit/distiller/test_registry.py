"""Which teachers a configuration leads to, and how a wrong one is refused."""

from __future__ import annotations

import json
import pathlib

import pytest

from services.distiller.providers import base, openai, recorded, registry
from shared import errors
from shared import settings as config
from tests.unit.distiller import fakes

RECORDING = {
    "queries": ["How long is it?"],
    "topic": "The bridge",
    "pairs": [
        {"question": "Who built it?", "answer": "Ida Kroll", "paraphrases": ["Its builder?"]},
        {"question": "How long is it?", "answer": "412 m", "paraphrases": []},
    ],
}


def _build(environ: dict[str, str], **evolution: object) -> base.CloudProvider:
    section = config.Evolution.model_validate(evolution)
    return registry.get_cloud_provider(
        section, lambda: fakes.Teacher([], "documents"), environ, fakes.ledger(), lambda: 0.0
    )


@pytest.mark.parametrize(
    ("environ", "evolution", "name"),
    [
        ({}, {}, "documents"),
        ({"OPENAI_API_KEY": "sk"}, {}, "openai:gpt-4.1"),
        ({"OPENAI_API_KEY": "sk"}, {"provider_type": "documents"}, "documents"),
        ({"OPENAI_API_KEY": "sk"}, {"model": "m"}, "openai:m"),
        ({"ANTHROPIC_API_KEY": "sk"}, {"provider_type": "anthropic", "model": "c"}, "anthropic:c"),
        ({}, {"provider_type": "local", "endpoint": "http://h/v1", "model": "q"}, "local:q"),
        (
            {"OPENAI_API_KEY": "sk"},
            {"model": "m", "fallbacks": [{"provider_type": "documents"}]},
            "openai:m > documents",
        ),
    ],
)
async def test_teacher_is_built_when_the_configuration_names_it(
    environ: dict[str, str], evolution: dict[str, object], name: str
) -> None:
    provider = _build(environ, **evolution)
    assert provider.name == name
    await provider.aclose()


@pytest.mark.parametrize(
    ("evolution", "message"),
    [
        ({"provider_type": "openai"}, "OPENAI_API_KEY"),
        ({"fallbacks": [{"provider_type": "anthropic"}]}, r"fallbacks\[0\].*ANTHROPIC_API_KEY"),
        ({"provider_type": "local"}, r"evolution\.endpoint"),
        ({"provider_type": "recorded"}, r"evolution\.recordings"),
        ({"provider_type": "recorded", "recordings": "/nowhere.jsonl"}, "/nowhere.jsonl"),
    ],
)
def test_message_names_what_is_missing_when_a_teacher_cannot_be_built(
    evolution: dict[str, object], message: str
) -> None:
    with pytest.raises(errors.ConfigError, match=message):
        _build({}, **evolution)


def test_key_is_taken_without_the_space_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai, "OpenAIProvider", lambda key, *rest: fakes.Teacher([], key))
    assert _build({"OPENAI_API_KEY": "sk-sesame\r\n"}).name == "sk-sesame"
    assert _build({"OPENAI_API_KEY": " \n"}).name == "documents"
    with pytest.raises(errors.ConfigError, match="OPENAI_API_KEY is not set"):
        _build({"OPENAI_API_KEY": " \n"}, provider_type="openai")


@pytest.mark.parametrize("key", ["sk-ses\name", "sk-ses\u2026ame", "sk-ses\x7fame"])
def test_key_is_refused_untold_when_no_header_can_hold_it(key: str) -> None:
    with pytest.raises(errors.ConfigError, match="OPENAI_API_KEY holds characters") as caught:
        _build({"OPENAI_API_KEY": key}, provider_type="openai")
    assert "sk-" not in str(caught.value)


def test_rate_is_asked_for_when_dollars_are_limited() -> None:
    keys = {"OPENAI_API_KEY": "sk"}
    budget = {"day_dollars": 1.0}
    with pytest.raises(errors.ConfigError, match=r"evolution\.rates\.m: evolution names"):
        _build(keys, model="m", budget=budget)
    rates = {"m": {"input": 1.0, "output": 2.0}}
    assert _build(keys, model="m", budget=budget, rates=rates).name == "openai:m"
    # What costs nothing needs none.
    local = {"provider_type": "local", "endpoint": "http://h/v1"}
    assert _build({}, budget=budget, **local).name == "local:default"


async def test_document_goes_to_its_reader_when_a_cloud_teacher_is_configured() -> None:
    reader = fakes.Teacher([fakes.pair("Q?", "A")], "documents", title="Handbook")
    provider = registry.get_cloud_provider(
        config.Evolution(), lambda: reader, {"OPENAI_API_KEY": "sk"}, fakes.ledger(), lambda: 0.0
    )
    request = base.QARequest(topic="", queries=(), document="handbook.md")
    pairs = await provider.generate_qa(request)
    assert (pairs, (await provider.subject(request, pairs)).title) == (reader.pairs, "Handbook")
    assert [one.topic_key for one in await provider.locate(["Q?"])] == [""]
    await provider.aclose()
    assert reader.closed


async def test_recording_is_replayed_when_a_question_or_the_topic_matches(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps(RECORDING) + "\n", encoding="utf-8")
    provider = recorded.RecordedProvider(path)
    asked = base.QARequest(topic="", queries=("how long is it",), count=1)
    pairs = await provider.generate_qa(asked)
    assert [one.answer for one in pairs] == ["412 m"]
    assert (await provider.subject(asked, pairs)).title == "The bridge"
    by_topic = await provider.generate_qa(base.QARequest(topic="the bridge", queries=()))
    assert len(by_topic) == 2
    with pytest.raises(errors.NotFoundError):
        await provider.generate_qa(base.QARequest(topic="", queries=("Who?",)))


def test_line_is_named_when_a_recording_is_malformed(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps(RECORDING) + '\n{"pairs": [{"question": "Q"}]}\n', encoding="utf-8")
    with pytest.raises(errors.ConfigError, match=r"line 2, pairs\.0\.answer"):
        recorded.RecordedProvider(path)
