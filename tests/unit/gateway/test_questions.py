"""The demo's exam: the shipped one, and wrong files."""

from __future__ import annotations

import json
import pathlib
import re

import pytest

from services.gateway.command_line import questions
from shared import grading, terminal

GOOD = {"ask": "Who?", "unseen": "What person?", "answer": "Ann"}


def test_has_ten_answerable_facts_when_shipped() -> None:
    exam = questions.load(None, None)
    assert len(exam.facts) == len(exam.known) == 10
    wordings = [text for fact in exam.facts for text in (fact.ask, fact.unseen)]
    assert len(set(wordings)) == 20
    text = grading.normalise(exam.text)
    for fact in exam.facts:
        wanted = grading.normalise(fact.answer)
        spans = (text[at : at + len(wanted)] for at in range(len(text)))
        assert wanted in spans, fact.answer
        assert fact.ask not in exam.text and fact.unseen not in exam.text


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "not JSON"),
        ("[]", "facts: expected a list"),
        ('{"facts": []}', "facts: expected a list"),
        ('{"facts": [1]}', "facts[0]: expected an object"),
        (json.dumps({"facts": [GOOD, GOOD | {"unseen": " "}]}), "facts[1].unseen: expected"),
        (json.dumps({"facts": [GOOD | {"answer": 7}]}), "facts[0].answer: expected"),
        (json.dumps({"facts": [{"ask": "Who?"}]}), "facts[0].unseen: expected"),
    ],
)
def test_names_file_and_field_when_questions_are_malformed(
    tmp_path: pathlib.Path, content: str, told: str
) -> None:
    path = tmp_path / "questions.json"
    path.write_text(content)
    with pytest.raises(terminal.UsageError, match=re.escape(told)) as caught:
        questions.read_facts(path)
    assert str(path) in str(caught.value)


def test_names_the_file_when_the_document_is_missing_or_empty(tmp_path: pathlib.Path) -> None:
    path, asked = tmp_path / "document.md", tmp_path / "questions.json"
    asked.write_text(json.dumps({"facts": [GOOD]}))
    with pytest.raises(terminal.UsageError, match=r"document\.md: No such file"):
        questions.load(path, asked)
    path.write_text(" \n")
    with pytest.raises(terminal.UsageError, match=r"document\.md is empty"):
        questions.load(path, asked)
    path.write_text("Ann.")
    assert questions.load(path, asked).facts == (questions.Fact(**GOOD),)


def test_wants_both_when_only_one_file_is_given(tmp_path: pathlib.Path) -> None:
    with pytest.raises(terminal.UsageError, match="give both"):
        questions.load(tmp_path / "document.md", None)
